"""From the names in a job to things that can be read."""

from collections.abc import Callable

from service.compute.jobs import ModelInput, PatchInput
from service.compute.sources import ModelFiles, PatchSource, WeightFile
from service.layout import patchfile
from service.layout.header import Read, read_header
from service.names import Digest

OpenRead = Callable[[Digest], Read]
"""Opens a blob for reads of byte ranges."""
Told = Callable[[float, str], None]
"""Told how much is done, from 0 to 1, and what is being done."""


def open_model(model: ModelInput, open_read: OpenRead) -> ModelFiles:
    """Open every weight file of a model; raises `NotSafetensors`."""
    files = {}
    for file in model.files:
        read = open_read(file.digest)
        files[file.path] = WeightFile(read_header(read, file.size_bytes, file.path), read)
    return ModelFiles(files, model.digest, model.reference)


def open_patch(patch: PatchInput, open_read: OpenRead) -> PatchSource:
    """Open a patch file; raises `NotSafetensors`, `UnsupportedFormat`, `NotAPatchFile`."""
    read = open_read(patch.digest)
    return PatchSource(patchfile.read(read, patch.size_bytes), read)

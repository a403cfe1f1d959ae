"""From the names in a job to things that can be read."""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from service import errors
from service.compute.jobs import ModelInput, PatchInput
from service.compute.sources import ModelFiles, PatchSource, WeightFile
from service.layout import patchfile
from service.layout.header import Read, read_header
from service.names import Digest, TensorAddress, digest_of

HELD_BYTES: Final = 16 * 2**20
"""A patch file up to this size is held in memory while a job lasts."""

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
    """Open a patch file.

    A small one is read at once and held to its digest, so each of its tensors need be held to its
    own only the first time that this process decodes it: that took half the time of a build.

    Raises `NotSafetensors`, `UnsupportedFormat`, `NotAPatchFile`, and `DamagedBlob`.
    """
    read = open_read(patch.digest)
    if patch.size_bytes > HELD_BYTES:
        return PatchSource(patchfile.read(read, patch.size_bytes), read)
    content = read(0, patch.size_bytes)
    if digest_of(content) != patch.digest:
        raise errors.DamagedBlob(patch.digest)

    def held(start: int, end: int) -> bytes:
        return content[start:end]

    return PatchSource(patchfile.read(held, patch.size_bytes), held, _checked(patch.digest))


@lru_cache(maxsize=256)
def _checked(digest: Digest) -> set[TensorAddress]:  # noqa: ARG001  # what it is kept by
    """The tensors of a patch file that this process has decoded and checked."""
    return set()

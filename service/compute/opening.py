"""From the names in a job to things that can be read."""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from service import errors
from service.compute.jobs import ModelInput, PatchInput
from service.compute.sources import ModelFiles, PatchSource, WeightFile
from service.layout import patchfile
from service.layout.disk import RangeReader
from service.layout.header import Read, read_header
from service.names import Digest, TensorAddress, digest_of

MIB: Final = 2**20
HELD_BYTES: Final = 16 * MIB
"""A patch file up to this size that lies on no disk here is held in memory while a job lasts."""

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

    One that lies on a disk is held to its digest here, and so is a small one that is read at once
    from elsewhere; each of its tensors need be held to its own only the first time that this
    process decodes it: that took half the time of a build.

    Raises `NotSafetensors`, `UnsupportedFormat`, `NotAPatchFile`, and `DamagedBlob`.
    """
    read = open_read(patch.digest)
    if isinstance(read, RangeReader) and read.fileno() is not None:
        if _sha256_of(read, patch.size_bytes) != patch.digest:
            raise errors.DamagedBlob(patch.digest)
        return _source(patch, read)
    if patch.size_bytes > HELD_BYTES:
        return PatchSource(patchfile.read(read, patch.size_bytes), read)
    content = read(0, patch.size_bytes)
    if digest_of(content) != patch.digest:
        raise errors.DamagedBlob(patch.digest)

    def held(start: int, end: int) -> bytes:
        return content[start:end]

    return _source(patch, held)


def _source(patch: PatchInput, read: Read) -> PatchSource:
    file, checked = patchfile.read(read, patch.size_bytes), _checked(patch.digest)
    if patch.is_checked:
        checked.update(tensor.address for tensor in file.tensors)
    return PatchSource(file, read, checked)


def _sha256_of(read: RangeReader, size_bytes: int) -> Digest:
    sha256, buffer = hashlib.sha256(), memoryview(bytearray(min(size_bytes, MIB)))
    for start in range(0, size_bytes, MIB):
        part = buffer[: size_bytes - start]
        read.fill(part, start)
        sha256.update(part)
    return Digest(f"sha256:{sha256.hexdigest()}")


@lru_cache(maxsize=256)
def _checked(digest: Digest) -> set[TensorAddress]:  # noqa: ARG001  # what it is kept by
    """The tensors of a patch file that this process has decoded and checked."""
    return set()

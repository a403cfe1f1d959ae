"""From the names in a job to things that can be read."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from threading import Lock
from typing import Final

import torch

from service import errors
from service.compute.jobs import ModelInput, PatchInput
from service.compute.sources import ModelFiles, PatchSource, WeightFile, sha256_of
from service.layout import patchfile
from service.layout.codecs import codes_bytes
from service.layout.disk import RangeReader
from service.layout.header import Read, read_header
from service.layout.patchfile import PatchFile, SignatureTensor
from service.names import Digest, TensorAddress, digest_of
from service.tensors.codec import Unpacked

MIB: Final = 2**20
KEPT_BYTES: Final = 32 * MIB
"""Signatures are kept unpacked up to this size in all: a third of a build's time otherwise."""
HELD_BYTES: Final = 16 * MIB
"""A patch file up to this size that lies on no disk here is held in memory while a job lasts."""

OpenRead = Callable[[Digest], Read]
"""Opens a blob for reads of byte ranges; several threads may call it."""
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
    process decodes it: that took half the time of a build. What was built with lately is kept
    unpacked: nothing of it is read again.

    Raises `NotSafetensors`, `UnsupportedFormat`, `NotAPatchFile`, and `DamagedBlob`.
    """
    known = _KEPT.get(patch.digest)
    if known is not None:
        late = _Late(patch, open_read)
        return PatchSource(known.file, late, _checked(patch.digest), known.unpacked)
    read, is_held = _opened(patch, open_read)
    file = patchfile.read(read, patch.size_bytes)
    if not is_held:
        return PatchSource(file, read)
    checked = _checked(patch.digest)
    if patch.is_checked:
        checked.update(tensor.address for tensor in file.tensors)
    return PatchSource(file, read, checked, _KEPT.put(patch.digest, file))


def _opened(patch: PatchInput, open_read: OpenRead) -> tuple[Read, bool]:
    """Reads of a patch file, and whether it is held to its digest; raises `DamagedBlob`."""
    read = open_read(patch.digest)
    if isinstance(read, RangeReader) and read.fileno() is not None:
        if f"sha256:{sha256_of(read, patch.size_bytes).hex()}" != patch.digest:
            raise errors.DamagedBlob(patch.digest)
        return read, True
    if patch.size_bytes > HELD_BYTES:
        return read, False
    content = read(0, patch.size_bytes)
    if digest_of(content) != patch.digest:
        raise errors.DamagedBlob(patch.digest)

    def held(start: int, end: int) -> bytes:
        return content[start:end]

    return held, True


class _Late:
    """Reads of a patch file that is opened, and held to its digest, by the first of them."""

    def __init__(self, patch: PatchInput, open_read: OpenRead) -> None:
        self._patch = patch
        self._open_read = open_read

    @cached_property
    def _read(self) -> Read:
        return _opened(self._patch, self._open_read)[0]

    def __call__(self, start: int, end: int) -> bytes:
        return self._read(start, end)


@dataclass(frozen=True)
class _Known:
    """A patch file whose signatures are kept unpacked, as far as they were built with."""

    file: PatchFile
    size_bytes: int
    unpacked: dict[tuple[TensorAddress, torch.device], Unpacked] = field(default_factory=dict)


class _Keeper:
    """The patch files that this process built with lately, within `KEPT_BYTES`; thread-safe."""

    def __init__(self) -> None:
        self._known: OrderedDict[Digest, _Known] = OrderedDict()
        self._lock = Lock()

    def get(self, digest: Digest) -> _Known | None:
        """The patch file, if it is kept."""
        with self._lock:
            if digest in self._known:
                self._known.move_to_end(digest)
            return self._known.get(digest)

    def put(
        self, digest: Digest, file: PatchFile
    ) -> dict[tuple[TensorAddress, torch.device], Unpacked] | None:
        """Keep a patch file, in place of those not used for longest; answers what is to be filled.

        None where it is too large.
        """
        known = _Known(file, sum(map(_unpacked_bytes, file.tensors)))
        with self._lock:
            room = KEPT_BYTES - known.size_bytes
            if room < 0:
                return None
            while sum(each.size_bytes for each in self._known.values()) > room:
                self._known.popitem(last=False)
            self._known[digest] = known
            return known.unpacked

    def clear(self) -> None:
        """Keep nothing."""
        with self._lock:
            self._known.clear()


_KEPT: Final = _Keeper()


def _unpacked_bytes(tensor: SignatureTensor) -> int:
    halves = 2 * tensor.halves.size_bytes  # kept in f32
    return codes_bytes(tensor.codec, tensor.shape) + halves


@lru_cache(maxsize=256)
def _checked(digest: Digest) -> set[TensorAddress]:  # noqa: ARG001  # what it is kept by
    """The tensors of a patch file that this process has decoded and checked."""
    return set()

"""Where tensors come from: byte readers over weight files and patch files, and a device."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Final

import torch
from torch import Tensor

from service import errors
from service.layout.deflate import BadStream
from service.layout.disk import RangeReader
from service.layout.header import Header, Read, TensorEntry
from service.layout.patchfile import PatchFile, SignatureTensor
from service.names import ByteRange, TensorAddress
from service.tensors import codec, raw

_READ_BYTES: Final = 16 * 2**20
_HASHED_BYTES: Final = 2**20
_PART: Final = codec.ALIGNED * 2**14
"""Elements that are decoded at once where the whole is not wanted."""


@dataclass(frozen=True)
class WeightFile:
    """One weight file of a model version."""

    header: Header
    read: Read


@dataclass(frozen=True)
class ModelFiles:
    """The weight files of a model version by path; `digest` is the version digest."""

    files: Mapping[str, WeightFile]
    digest: str
    reference: str | None = None

    @property
    def headers(self) -> dict[str, Header]:
        """The headers by path."""
        return {path: file.header for path, file in self.files.items()}

    @property
    def size_bytes(self) -> int:
        """The size of all weight files."""
        return sum(file.header.file_size for file in self.files.values())


@dataclass(frozen=True)
class PatchSource:
    """A patch file that can be decoded.

    `checked` holds the tensors that were decoded and held to their digests before, from the very
    bytes that `read` gives; None where nobody keeps count. `unpacked` holds those that are kept
    ready to be decoded, on a device; None where nobody keeps them.
    """

    patch: PatchFile
    read: Read
    checked: set[TensorAddress] | None = None
    unpacked: dict[tuple[TensorAddress, torch.device], codec.Unpacked] | None = None


def load(read: Read, entry: TensorEntry, device: torch.device) -> Tensor:
    """Read one tensor; at no time is it in memory twice, but for the part being read."""
    buffer = _octets(read, ByteRange(entry.start, entry.end))
    return raw.view(buffer, entry.dtype, entry.shape).to(device)


def load_part(read: Read, entry: TensorEntry, start: int, end: int, device: torch.device) -> Tensor:
    """Read elements `[start, end)` of a tensor, row by row."""
    width = entry.size_bytes // prod(entry.shape)
    buffer = _octets(read, ByteRange(entry.start + start * width, entry.start + end * width))
    return raw.view(buffer, entry.dtype, (end - start,)).to(device)


def decode(source: PatchSource, tensor: SignatureTensor, device: torch.device) -> Tensor:
    """Decode one tensor of a signature and check it against its pinned digest.

    Raises `NotAPatchFile`, naming the tensor.
    """
    decoded = _unpacked(source, tensor, device).part(0, tensor.numel).reshape(tensor.shape)
    check(tensor, digest_of(decoded))
    return decoded


def decoded_parts(
    source: PatchSource, tensor: SignatureTensor, device: torch.device
) -> Iterator[Tensor]:
    """One tensor of a signature, flat, part after part; not held to its digest: see `check`.

    Raises `NotAPatchFile`, naming the tensor.
    """
    return _parts(_unpacked(source, tensor, device), tensor.numel)


def _parts(unpacked: codec.Unpacked, numel: int) -> Iterator[Tensor]:
    for start in range(0, numel, _PART):
        yield unpacked.part(start, min(numel, start + _PART))


def unpack(source: PatchSource, tensor: SignatureTensor, device: torch.device) -> codec.Unpacked:
    """Make a tensor of a signature ready to be decoded by parts, checked if it was not before.

    Raises `NotAPatchFile`, naming the tensor.
    """
    place = tensor.address, device
    if source.unpacked is not None and place in source.unpacked:
        return source.unpacked[place]
    unpacked = _unpacked(source, tensor, device)
    if source.checked is None or tensor.address not in source.checked:
        sha256 = hashlib.sha256()
        for part in _parts(unpacked, tensor.numel):
            sha256.update(raw.octets(part))
        check(tensor, sha256.hexdigest())
        if source.checked is not None:
            source.checked.add(tensor.address)
    if source.unpacked is not None:
        source.unpacked[place] = unpacked
    return unpacked


def _unpacked(source: PatchSource, tensor: SignatureTensor, device: torch.device) -> codec.Unpacked:
    codes = _octets(source.read, tensor.codes)
    halves = _octets(source.read, tensor.halves).view(torch.float16).to(device)
    coded = codec.Coded(tensor.exponent, codes, halves, tensor.deflated)
    try:
        return codec.unpack(coded, tensor.codec, tensor.shape)
    except BadStream as error:
        raise errors.NotAPatchFile(f"tensor {str(tensor.address)!r} {error}") from error


def check(tensor: SignatureTensor, digest: str) -> None:
    """Hold a decoded tensor to what its file pins; `digest` is whole, in hexadecimal digits.

    Raises `NotAPatchFile`, naming the tensor.
    """
    if not digest.startswith(tensor.digest):
        raise errors.NotAPatchFile(f"tensor {str(tensor.address)!r} does not hash to its digest")


def digest_of(decoded: Tensor) -> str:
    """The sha256 that pins a decoded tensor: f32, little endian, row by row."""
    return hashlib.sha256(raw.octets(decoded)).hexdigest()


def sha256_of(read: Read, end: int) -> bytes:
    """The sha256 of a file's first `end` bytes, read a piece at a time."""
    sha256, buffer = hashlib.sha256(), torch.empty(min(end, _HASHED_BYTES), dtype=torch.uint8)
    for start in range(0, end, _HASHED_BYTES):
        piece = buffer[: end - start]
        fill(piece, read, start)
        sha256.update(raw.octets(piece))
    return sha256.digest()


def fill(buffer: Tensor, read: Read, start: int) -> None:
    """Read as many bytes as `buffer` holds, from byte `start` on; straight into it from a disk."""
    view = buffer.numpy().data
    for at in range(0, len(view), _READ_BYTES):
        part = view[at : at + _READ_BYTES]
        if isinstance(read, RangeReader):
            read.fill(part, start + at)
        else:
            part[:] = read(start + at, start + at + len(part))


def _octets(read: Read, where: ByteRange) -> Tensor:
    buffer = torch.empty(where.size_bytes, dtype=torch.uint8)
    fill(buffer, read, where.start)
    return buffer

"""Writes a patch file tensor by tensor; the file appears, whole, when it is finished."""

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import torch
from torch import Tensor

from service import errors
from service.compute.sources import digest_of
from service.layout.codecs import Codec, Kind
from service.layout.patchfile import Notes, Packed, compose_header, compose_index, seal_of
from service.names import Digest
from service.tensors import codec, raw
from service.tensors.codec import Coded
from service.tensors.layers import Layer

_COPY_BYTES: Final = 2**20
_LARGEST_NORM: Final = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Ready:
    """A tensor that is packed, and what the index will say of it."""

    tensor: Packed
    coded: Coded


def pack(
    layer: Layer,
    kind: Kind,
    how: Codec,
    signature: Tensor,
    norms: tuple[float, float] | None,
    *,
    coarse: float | None = None,
) -> tuple[Ready, Tensor]:
    """Pack a signature; give it back, too, as a build will decode it.

    `norms` are ||R|| and ||W|| of a kernel, `coarse` its step as `codec.encode` takes it. Raises
    `SignatureTooLarge`.
    """
    coded = codec.encode(signature, how, coarse)
    decoded = codec.decode(coded, how, layer.shape)
    if max(norms or (0, 0)) > _LARGEST_NORM or not _is_finite(decoded):
        raise errors.SignatureTooLarge(str(layer.address))
    norm, weight_norm = norms or (None, None)
    tensor = Packed(
        address=layer.address,
        shape=layer.shape,
        kind=kind,
        codec=how,
        exponent=coded.exponent,
        norm=norm,
        weight_norm=weight_norm,
        digest=digest_of(decoded),
        deflated=coded.deflated,
    )
    return Ready(tensor, coded), decoded


def _is_finite(values: Tensor) -> bool:
    """Whether all are; `isfinite` would make two more tensors of the size."""
    return not values.numel() or all(map(isfinite, torch.aminmax(values)))


class PatchWriter:
    """Codes go to a file without a name until the header can be written before them."""

    def __init__(self, path: Path) -> None:
        self.tensors: list[Packed] = []
        self._path = path
        self._codes = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115  # closed by __exit__
        self._halves: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._codes.close()

    def put(
        self,
        layer: Layer,
        kind: Kind,
        how: Codec,
        signature: Tensor,
        norms: tuple[float, float] | None,
    ) -> None:
        """Pack a signature as `pack` does, and write it."""
        self.add(pack(layer, kind, how, signature, norms)[0])

    def add(self, ready: Ready) -> None:
        """Write a packed tensor behind those before it."""
        self._codes.write(raw.octets(ready.coded.codes))
        self._halves.append(bytes(raw.octets(ready.coded.halves)))
        self.tensors.append(ready.tensor)

    def finish(self, notes: Notes) -> tuple[Digest, int]:
        """Write the file, its seal last; its digest and size."""
        index = compose_index(self.tensors, notes)
        header = compose_header(self.tensors, len(index))
        sha256 = hashlib.sha256()
        with self._path.open("wb") as out:
            for part in chain([header.raw], self._halves, self._written(), [index]):
                sha256.update(part)
                out.write(part)
            seal = seal_of(sha256.digest(), [tensor.digest for tensor in self.tensors])
            sha256.update(seal)
            out.write(seal)
        return Digest(f"sha256:{sha256.hexdigest()}"), header.file_size

    def _written(self) -> Iterator[bytes]:
        """The codes, from their file."""
        self._codes.seek(0)
        while part := self._codes.read(_COPY_BYTES):
            yield part

"""The tensors of a clean model beside those of the robust one and the origin."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from service import errors
from service.compute.chunks import Chunk, ChunkReader
from service.compute.sources import ModelFiles, load
from service.layout import fit
from service.layout.codecs import Kind
from service.layout.header import TensorEntry
from service.names import TensorAddress
from service.tensors.layers import Layer, NameTable, Role, role_of
from service.tensors.profile import Skipped

_NAMED: Final = 10
_MAY_DIFFER: Final = frozenset({Role.HEAD, Role.EMBEDDING, Role.COUNTER})


@dataclass(frozen=True)
class Trio:
    """A clean model, a robust one, and their origin where it is known."""

    clean: ModelFiles
    robust: ModelFiles
    origin: ModelFiles | None

    @property
    def family(self) -> "Family":
        """The pair alone."""
        return Family(self.clean, (self.robust,), self.origin)

    @property
    def named(self) -> dict[str, ModelFiles]:
        """The models by what they are called in messages."""
        models = {"clean": self.clean, "robust": self.robust}
        return models if self.origin is None else {**models, "origin": self.origin}


@dataclass(frozen=True)
class Family:
    """Robust models, each to be compared with one clean model; their origin where it is known."""

    clean: ModelFiles
    robust: tuple[ModelFiles, ...]
    origin: ModelFiles | None

    @property
    def trios(self) -> list[Trio]:
        """Each robust model beside the clean one."""
        return [Trio(self.clean, robust, self.origin) for robust in self.robust]


@dataclass(frozen=True)
class Pairing:
    """The tensors that all models of a trio share, as the clean one names them."""

    trio: Trio
    layers: tuple[Layer, ...]
    skipped: tuple[Skipped, ...]
    where: dict[str, dict[TensorAddress, TensorAddress]]

    def load(self, layer: Layer, device: torch.device) -> dict[str, Tensor]:
        """One tensor of each model, by what the model is called."""
        return {
            side: _load(model, self.where[side][layer.address], device)
            for side, model in self.trio.named.items()
        }

    def chunk(self, reader: ChunkReader, side: str, chunk: Chunk) -> Tensor:
        """A chunk of one model's tensor."""
        where = self.where[side][chunk.layer.address]
        return reader.read(side, self.trio.named[side], where, chunk)

    def chunks(self, reader: ChunkReader, chunk: Chunk) -> dict[str, Tensor]:
        """The same chunk of each model."""
        return {side: self.chunk(reader, side, chunk) for side in self.trio.named}

    @property
    def shared(self) -> list[str]:
        """The models that other pairs of a family have, too."""
        return [side for side in self.trio.named if side != "robust"]

    def dtypes(self, layer: Layer) -> dict[str, str]:
        """The dtype of the tensor in each model."""
        return {
            side: _entry(model, self.where[side][layer.address]).dtype
            for side, model in self.trio.named.items()
        }

    def size_bytes(self, layer: Layer, side: str) -> int:
        """How many bytes the tensor takes in one of the models."""
        return _entry(self.trio.named[side], self.where[side][layer.address]).size_bytes


def pair(trio: Trio, names: NameTable) -> Pairing:
    """Lay the models side by side.

    What differs in heads, embeddings and counters alone is skipped and listed. Raises
    `ModelsDiffer` for any other difference, naming up to ten tensors and the side.
    """
    places = [
        fit.Place(path, tensor.name, tensor.shape, Kind.ADDITIVE)
        for path, file in trio.clean.files.items()
        for tensor in file.header.tensors
    ]
    where = {
        side: fit.resolve(model.headers, places) if side != "clean" else _itself(places)
        for side, model in trio.named.items()
    }
    layers, skipped, differences = [], [], list(_extras(trio, where, names))
    for place in places:
        layer = _layer(trio.clean, place, names)
        reasons = _reasons(trio, where, layer)
        if reasons and layer.role not in _MAY_DIFFER:
            differences += reasons
        elif reasons or layer.role in {Role.HEAD, Role.EMBEDDING}:
            why = "; ".join([str(layer.role), *reasons])
            skipped.append(Skipped(place.path, place.name, why))
        else:
            layers.append(layer)
    if differences:
        more = max(0, len(differences) - _NAMED)
        raise errors.ModelsDiffer(differences[:_NAMED], more)
    return Pairing(trio, tuple(layers), tuple(skipped), where)


def _itself(places: Sequence[fit.Place]) -> dict[TensorAddress, TensorAddress]:
    addresses = [TensorAddress(place.path, place.name) for place in places]
    return {address: address for address in addresses}


def _layer(clean: ModelFiles, place: fit.Place, names: NameTable) -> Layer:
    address = TensorAddress(place.path, place.name)
    dtype = _entry(clean, address).dtype
    return Layer(address, place.shape, dtype, role_of(place.name, dtype, place.shape, names))


def _extras(
    trio: Trio, where: dict[str, dict[TensorAddress, TensorAddress]], names: NameTable
) -> Iterator[str]:
    """What the other models hold and the clean one lacks."""
    for side, model in trio.named.items():
        known = set(where[side].values())
        for path, file in model.files.items():
            for tensor in file.header.tensors:
                if TensorAddress(path, tensor.name) in known:
                    continue
                if role_of(tensor.name, tensor.dtype, tensor.shape, names) not in _MAY_DIFFER:
                    yield f"the clean model lacks {tensor.name!r}, which the {side} one has"


def _reasons(
    trio: Trio, where: dict[str, dict[TensorAddress, TensorAddress]], layer: Layer
) -> list[str]:
    reasons = []
    for side, model in trio.named.items():
        found = where[side].get(layer.address)
        if found is None:
            reasons.append(f"the {side} model lacks {layer.name!r}")
            continue
        entry = _entry(model, found)
        if entry.shape != layer.shape:
            reasons.append(
                f"{layer.name!r} is {list(layer.shape)} in the clean model, "
                f"{list(entry.shape)} in the {side} one"
            )
        elif (entry.dtype in fit.PATCHABLE) != (layer.dtype in fit.PATCHABLE):
            reasons.append(
                f"{layer.name!r} is {layer.dtype} in the clean model, {entry.dtype} in the {side} "
                "one"
            )
    return reasons


def _entry(model: ModelFiles, address: TensorAddress) -> TensorEntry:
    return model.files[address.path].header.entry(address.name)


def _load(model: ModelFiles, address: TensorAddress, device: torch.device) -> Tensor:
    return load(model.files[address.path].read, _entry(model, address), device)

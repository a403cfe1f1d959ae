"""The first walk of an extraction: measure every kernel, choose those to keep.

Several robust models are measured in one walk, which reads the clean model and the origin once.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from service import errors
from service.compute.chunks import Chunk, ChunkReader, chunks_of
from service.compute.crew import Crew
from service.compute.pairing import Family, Pairing, pair
from service.names import TensorAddress
from service.tensors import norms, projection, selection
from service.tensors.layers import DEFAULT_NAMES, Layer, NameTable, Role, forward_order
from service.tensors.norms import Attached
from service.tensors.projection import Moments
from service.tensors.selection import Measured, Projection, Quality, Selection

_NAMED: Final = 10

Progress = Callable[[float], None]
"""Told how much is done, from 0 to 1, in bytes read; what it raises ends the work."""


@dataclass(frozen=True)
class ExtractOptions:
    """What to extract.

    `forward_order` lists names of tensors as somebody gave it, `recorded_order` as a checkpoint
    held them; the former goes before the latter, and natural order by name is what is left.
    """

    layers: Selection = selection.DEFAULT
    projection: Projection = Projection.AUTO
    quality: Quality = Quality.STANDARD
    names: NameTable = DEFAULT_NAMES
    forward_order: tuple[str, ...] | None = None
    recorded_order: tuple[str, ...] | None = None

    @property
    def order(self) -> tuple[str, ...] | None:
        """The forward order as far as it is known."""
        return self.recorded_order if self.forward_order is None else self.forward_order

    @property
    def order_origin(self) -> str:
        """Where the forward order is from: `given`, `recorded` or `by name`."""
        if self.forward_order is not None:
            return "given"
        return "by name" if self.recorded_order is None else "recorded"


@dataclass(frozen=True)
class Plan:
    """What was measured and chosen, before anything is packed; kernels in forward order."""

    pairing: Pairing
    options: ExtractOptions
    measured: tuple[Measured, ...]
    kept: tuple[Measured, ...]
    attached: Attached

    @property
    def form(self) -> str:
        """Which form of the signature this is: `origin`, `pair` or `none`."""
        if self.options.projection is Projection.NONE:
            return "none"
        return "pair" if self.pairing.trio.origin is None else "origin"

    @property
    def riders(self) -> list[Layer]:
        """What rides beside the kept kernels, once each."""
        own = [self.attached.riders[kernel.layer.address] for kernel in self.kept]
        return list(dict.fromkeys(rider for each in own for rider in each))


class NonFinite:
    """Collects tensors that hold NaN or infinity, to refuse them together."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, None]] = {}

    def add(self, layer: Layer, sides: Collection[str]) -> None:
        """Note the models that a tensor is not finite in."""
        for side in sides:
            self._found.setdefault(side, {})[str(layer.address)] = None

    def refuse(self) -> None:
        """Raise `NonFiniteWeights` where any was found, naming up to ten."""
        for side, found in self._found.items():
            tensors = list(found)
            more = [f"{len(tensors) - _NAMED} more"] if len(tensors) > _NAMED else []
            raise errors.NonFiniteWeights(side, tensors[:_NAMED] + more)


def not_finite(tensors: dict[str, Tensor]) -> list[str]:
    """The sides whose tensor holds NaN or infinity."""
    return [side for side, tensor in tensors.items() if not bool(tensor.isfinite().all())]


def measure(
    family: Family, options: ExtractOptions, device: torch.device, crew: Crew, progress: Progress
) -> list[Plan]:
    """Measure all kernels and choose, for each robust model; they are read in the order of files.

    Raises `ModelsDiffer`, `NonFiniteWeights`, `NothingToExtract`, `SignatureTooLarge`, `BadRequest`
    for a forward order that names what is not there.
    """
    pairings = [pair(trio, options.names) for trio in family.trios]
    _check_order(family, options)
    walk = _Walk(pairings, options.projection, device, crew)
    found = walk.measured(progress)
    return [
        _plan(pairing, options, kernels) for pairing, kernels in zip(pairings, found, strict=True)
    ]


def _plan(pairing: Pairing, options: ExtractOptions, found: dict[TensorAddress, Measured]) -> Plan:
    ordered = forward_order(pairing.layers, options.names, options.order)
    attached = norms.attach(ordered, frozenset(options.order or ()))
    measured = [found[layer.address] for layer in ordered if layer.address in found]
    kept = selection.select(measured, options.layers)
    return Plan(pairing, options, tuple(measured), tuple(kept), attached)


def _check_order(family: Family, options: ExtractOptions) -> None:
    """Refuse a list that was given by hand and names what is not there: a typing error, maybe."""
    addresses = [
        TensorAddress(path, name)
        for path, file in family.clean.files.items()
        for name in file.header.by_name
    ]
    known = {address.name for address in addresses} | set(map(str, addresses))
    strangers = [name for name in options.forward_order or () if name not in known]
    if strangers:
        more = f" and {len(strangers) - _NAMED} more" if len(strangers) > _NAMED else ""
        raise errors.BadRequest(
            f"forward_order names {', '.join(map(repr, strangers[:_NAMED]))}{more}, which the "
            "clean model does not hold"
        )


# ── the walk ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Part:
    """A chunk, and which of the pairings hold it."""

    chunk: Chunk
    members: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Found:
    """What one chunk of one pair came to."""

    moments: Moments
    broken: tuple[str, ...]


class _Walk:
    """Over all kernels that the pairs of a family share, chunk by chunk."""

    def __init__(
        self, pairings: Sequence[Pairing], form: Projection, device: torch.device, crew: Crew
    ) -> None:
        self._pairings = pairings
        self._form = form
        self._crew = crew
        self._reader = ChunkReader(device)

    def measured(self, progress: Progress) -> list[dict[TensorAddress, Measured]]:
        """Every kernel by address, for each pair."""
        parts = self._parts()
        whole, done = sum(part.size_bytes for part in parts), 0
        sums: list[dict[Layer, Moments]] = [{} for _ in self._pairings]
        broken = NonFinite()
        for part, found in zip(parts, self._crew.map(self._measure, parts), strict=True):
            layer = part.chunk.layer
            for member, each in zip(part.members, found, strict=True):
                before = sums[member].get(layer, projection.NOTHING)
                sums[member][layer] = before + each.moments
                broken.add(layer, each.broken)
            done += part.size_bytes
            progress(done / whole)
        broken.refuse()
        return [self._of_pair(number, own) for number, own in enumerate(sums)]

    def _parts(self) -> list[_Part]:
        """All chunks, as they lie in the clean model's files."""
        holders: dict[Layer, list[int]] = {}
        for number, pairing in enumerate(self._pairings):
            for layer in pairing.layers:
                if layer.role is Role.KERNEL and layer.numel:
                    holders.setdefault(layer, []).append(number)
        return [
            _Part(chunk, tuple(members), self._size_bytes(chunk, members))
            for layer, members in holders.items()
            for chunk in chunks_of(layer)
        ]

    def _size_bytes(self, chunk: Chunk, members: Sequence[int]) -> int:
        layer, first = chunk.layer, self._pairings[members[0]]
        whole = sum(first.size_bytes(layer, side) for side in first.shared)
        whole += sum(self._pairings[member].size_bytes(layer, "robust") for member in members)
        return whole * chunk.numel // layer.numel

    def _measure(self, part: _Part) -> list[_Found]:
        first = self._pairings[part.members[0]]
        tensors = {side: first.chunk(self._reader, side, part.chunk) for side in first.shared}
        return [self._measure_one(part.chunk, tensors, member) for member in part.members]

    def _measure_one(self, chunk: Chunk, shared: dict[str, Tensor], member: int) -> _Found:
        tensors = shared | {"robust": self._pairings[member].chunk(self._reader, "robust", chunk)}
        moments = projection.moments(tensors["clean"], tensors["robust"], tensors.get("origin"))
        return _Found(moments, () if moments.is_finite else tuple(not_finite(tensors)))

    def _of_pair(self, member: int, sums: dict[Layer, Moments]) -> dict[TensorAddress, Measured]:
        return {layer.address: self._judged(member, layer, sums[layer]) for layer in sums}

    def _judged(self, member: int, layer: Layer, found: Moments) -> Measured:
        if not found.is_finite:  # every weight is finite, but not the sum of the squares
            raise errors.SignatureTooLarge(str(layer.address))
        coefficient = found.coefficient if self._form is Projection.AUTO else 0.0
        square = found.energy(coefficient)
        if square is None:
            square = self._residual_energy(member, layer, coefficient)
        energy = 0.0 if found.is_noise(square) else square
        return Measured(layer, energy, found.ww, found.cosine, coefficient)

    def _residual_energy(self, member: int, layer: Layer, coefficient: float) -> float:
        pairing = self._pairings[member]

        def of_chunk(chunk: Chunk) -> float:
            tensors = pairing.chunks(self._reader, chunk)
            return projection.residual_energy(
                tensors["clean"], tensors["robust"], tensors.get("origin"), coefficient
            )

        total = 0.0
        for square in self._crew.map(of_chunk, chunks_of(layer)):
            total += square
        return total

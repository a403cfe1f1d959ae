"""What each choice of kernels would keep of a pair, told before anything is extracted."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from service.compute.estimates import data_bytes, file_bytes
from service.compute.measure import Plan
from service.layout.patchfile import Notes
from service.names import TensorAddress
from service.tensors import selection
from service.tensors.layers import Layer
from service.tensors.profile import Choice
from service.tensors.selection import All, ByEnergy, First, Measured, Quality, Selection

ENERGIES: Final = (0.70, 0.85, 0.95)


@dataclass(frozen=True, slots=True)
class _Share:
    """What some kernels come to, with all that rides beside them."""

    kernels: int
    parameters: int
    energy: float
    size_bytes: Mapping[Quality, float]

    def __add__(self, other: "_Share") -> "_Share":
        size_bytes = {q: size + other.size_bytes[q] for q, size in self.size_bytes.items()}
        return _Share(
            self.kernels + other.kernels,
            self.parameters + other.parameters,
            self.energy + other.energy,
            size_bytes,
        )


def choices(plan: Plan, notes: Notes) -> tuple[Choice, ...]:
    """By energy, the first 1 … N kernels, all."""
    empty, shares = _shares(plan, notes)
    in_order = [shares[kernel.layer.address] for kernel in plan.measured]
    *firsts, whole = accumulate(in_order, initial=empty)
    found: list[tuple[Selection, _Share]] = []
    for energy in ENERGIES:
        kept = selection.chosen(plan.measured, ByEnergy(energy))
        own = (shares[kernel.layer.address] for kernel in kept)
        found.append((ByEnergy(energy), sum(own, empty)))
    found += [(First(count), share) for count, share in enumerate(firsts) if count]
    return tuple(_choice(asked, share, whole) for asked, share in (*found, (All(), whole)))


def _choice(asked: Selection, share: _Share, whole: _Share) -> Choice:
    return Choice(
        layers=selection.layers_json(asked),
        kernels=share.kernels,
        parameters=share.parameters,
        energy=min(1.0, share.energy / whole.energy) if whole.energy > 0 else 0.0,
        estimated_bytes={str(quality): round(size) for quality, size in share.size_bytes.items()},
    )


def _shares(plan: Plan, notes: Notes) -> tuple[_Share, dict[TensorAddress, _Share]]:
    """What a patch without kernels takes, and each kernel beside that.

    A model may have a thousand kernels, hence as many choices: the index is composed twice, with
    no tensor and with all, and what lies between is shared out evenly.
    """
    stored = [kernel for kernel in plan.measured if kernel.energy > 0]
    riders = _own_riders(plan)
    every = [rider for own in riders.values() for rider in own]
    empty, each = {}, {}
    for quality in Quality:
        empty[quality] = file_bytes([], [], notes, quality)
        index = file_bytes(stored, every, notes, quality) - data_bytes(stored, every, quality)
        each[quality] = (index - empty[quality]) / max(1, len(stored) + len(every))

    def share(kernel: Measured) -> _Share:
        own, kept = riders[kernel.layer.address], [kernel] if kernel.energy > 0 else []
        return _Share(
            kernels=1,
            parameters=kernel.layer.numel,
            energy=kernel.relative_energy,
            size_bytes={
                quality: data_bytes(kept, own, quality) + each[quality] * len([*kept, *own])
                for quality in Quality
            },
        )

    return _Share(0, 0, 0.0, empty), {k.layer.address: share(k) for k in plan.measured}


def _own_riders(plan: Plan) -> dict[TensorAddress, list[Layer]]:
    """What rides with each kernel; where it rides with several, with the first of them."""
    seen: set[Layer] = set()
    own: dict[TensorAddress, list[Layer]] = {}
    for kernel in plan.measured:
        new = [r for r in plan.attached.riders[kernel.layer.address] if r not in seen]
        own[kernel.layer.address] = new
        seen.update(new)
    return own

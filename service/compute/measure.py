"""The first walk of an extraction: measure every kernel, choose those to keep.

Tensors are read one at a time, so memory is bounded by a few of the largest kernels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from service import errors
from service.compute.pairing import Pairing, Trio, pair
from service.names import TensorAddress
from service.tensors import norms, projection, selection
from service.tensors.layers import DEFAULT_NAMES, Layer, NameTable, Role, forward_order
from service.tensors.norms import Attached
from service.tensors.selection import Measured, Projection, Quality, Selection

_NAMED: Final = 10

Progress = Callable[[float], None]
"""Told how much is done, from 0 to 1, after each tensor; what it raises ends the work."""


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
        self._found: dict[str, list[str]] = {}

    def note(self, layer: Layer, tensors: dict[str, Tensor]) -> bool:
        """Whether the tensor is not finite in one of the models."""
        sides = [side for side, tensor in tensors.items() if not bool(tensor.isfinite().all())]
        for side in sides:
            self._found.setdefault(side, []).append(str(layer.address))
        return bool(sides)

    def refuse(self) -> None:
        """Raise `NonFiniteWeights` where any was found, naming up to ten."""
        for side, tensors in self._found.items():
            more = [f"{len(tensors) - _NAMED} more"] if len(tensors) > _NAMED else []
            raise errors.NonFiniteWeights(side, tensors[:_NAMED] + more)


def measure(trio: Trio, options: ExtractOptions, device: torch.device, progress: Progress) -> Plan:
    """Measure all kernels and choose.

    Raises `ModelsDiffer`, `NonFiniteWeights`, `NothingToExtract`, `SignatureTooLarge`.
    """
    pairing = pair(trio, options.names)
    _check_order(trio, options)
    ordered = forward_order(pairing.layers, options.names, options.order)
    attached = norms.attach(ordered, frozenset(options.order or ()))
    kernels = [layer for layer in ordered if layer.role is Role.KERNEL and layer.numel]
    whole = sum(kernel.numel for kernel in kernels)
    measured: list[Measured] = []
    broken = NonFinite()
    done = 0
    for kernel in kernels:
        tensors = pairing.load(kernel, device)
        measured += _measure_kernel(kernel, tensors, options.projection, broken)
        done += kernel.numel
        progress(done / whole)
    broken.refuse()
    kept = selection.select(measured, options.layers)
    return Plan(pairing, options, tuple(measured), tuple(kept), attached)


def _check_order(trio: Trio, options: ExtractOptions) -> None:
    """Refuse a list that was given by hand and names what is not there: a typing error, maybe."""
    addresses = [
        TensorAddress(path, name)
        for path, file in trio.clean.files.items()
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


def _measure_kernel(
    kernel: Layer, tensors: dict[str, Tensor], form: Projection, broken: NonFinite
) -> list[Measured]:
    clean, robust, origin = tensors["clean"], tensors["robust"], tensors.get("origin")
    found = projection.moments(clean, robust, origin)
    if not found.is_finite:
        if not broken.note(kernel, tensors):  # finite itself, but not the sum of its squares
            raise errors.SignatureTooLarge(str(kernel.address))
        return []
    coefficient = found.coefficient if form is Projection.AUTO else 0.0
    energy = projection.energy(clean, robust, origin, found, coefficient)
    return [Measured(kernel, energy, found.ww, found.cosine, coefficient)]

"""Which kernels a patch keeps, from what was measured of all of them; no tensor is read.

By default those of the highest energy density: e = ||R||^2 / ||W||^2, sorted by e / numel, until
0.85 of the energy is covered. Energy kept predicts how much robustness a patch gives back; density
keeps the patch small, and needs no forward order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Final

from service import errors
from service.layout.codecs import Codec
from service.tensors.layers import Layer

DEFAULT_ENERGY: Final = 0.85

SMALL_ELEMENTS: Final = 4096
"""Tensors of at most this size stay at 8 bits: below 2 bits they cost accuracy, not bytes."""


class Quality(StrEnum):
    """How closely a patch file keeps the signature."""

    EXACT = "exact"
    HIGH = "high"
    STANDARD = "standard"
    SMALL = "small"
    TINY = "tiny"


@dataclass(frozen=True, slots=True)
class Grain:
    """How finely a kernel is packed.

    `coarse` is the step in units of the root mean square, None: as fine as the codec can. `bits`
    is what an element of a normally distributed signature takes once its codes are deflated.
    """

    codec: Codec
    coarse: float | None
    bits: float


_EXACT: Final = Grain(Codec.F32, None, 32.0)
_SMALL: Final = Grain(Codec.Q8, None, 7.4)
_GRAINS: Final = {
    Quality.HIGH: Grain(Codec.Q4, None, 3.6),
    Quality.STANDARD: Grain(Codec.Q4, 1.1, 2.0),
    Quality.SMALL: Grain(Codec.FIVE, 2.2, 1.1),
    Quality.TINY: Grain(Codec.FIVE, 3.0, 0.75),
}


class Projection(StrEnum):
    """What is taken away from the plain difference."""

    AUTO = "auto"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class ByEnergy:
    """The densest kernels until this share of the energy is covered."""

    share: float


@dataclass(frozen=True, slots=True)
class First:
    """The first `count` kernels in forward order."""

    count: int


@dataclass(frozen=True, slots=True)
class Named:
    """The kernels whose name, or `path:name`, one of the glob patterns matches."""

    patterns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class All:
    """Every kernel."""


Selection = ByEnergy | First | Named | All

DEFAULT: Final = ByEnergy(DEFAULT_ENERGY)


def parse_layers(value: Any) -> Selection:
    """Read `{"energy": 0.85}`, `{"first": 7}`, `{"names": ["…*"]}` or `"all"`; None: the default.

    Raises `BadRequest`.
    """
    match value:
        case None:
            return DEFAULT
        case "all":
            return All()
        case {"energy": float() | int() as share, **rest} if not rest and _is_share(share):
            return ByEnergy(float(share))
        case {"first": int() as count, **rest} if not rest and count > 0 and count is not True:
            return First(count)
        case {"names": [*patterns], **rest} if not rest and patterns:
            if all(isinstance(pattern, str) for pattern in patterns):
                return Named(tuple(patterns))
    raise errors.BadRequest(
        'layers must be {"energy": a share above 0 and at most 1}, {"first": a count above 0}, '
        f'{{"names": [glob patterns]}} or "all", not {value!r:.100}'
    )


def _is_share(value: Any) -> bool:
    return value is not True and 0 < value <= 1


def layers_json(selection: Selection) -> object:
    """The form that `parse_layers` reads."""
    match selection:
        case ByEnergy(share):
            return {"energy": share}
        case First(count):
            return {"first": count}
        case Named(patterns):
            return {"names": list(patterns)}
        case All():
            return "all"


def parse_quality(value: str) -> Quality:
    """Read the name of a quality; raises `BadRequest` naming those there are."""
    try:
        return Quality(value)
    except ValueError as error:
        known = ", ".join(Quality)
        raise errors.BadRequest(f"quality {value!r:.40} is not one of {known}") from error


def parse_projection(value: str) -> Projection:
    """Read `auto` or `none`; raises `BadRequest`."""
    try:
        return Projection(value)
    except ValueError as error:
        raise errors.BadRequest(f"projection {value!r:.40} is not one of auto, none") from error


def kernel_grain(quality: Quality, numel: int) -> Grain:
    """How a kernel of `numel` elements is packed."""
    if quality is Quality.EXACT:
        return _EXACT
    if numel <= SMALL_ELEMENTS:
        return _SMALL
    return _GRAINS[quality]


def rider_codec(quality: Quality) -> Codec:
    """How what rides beside a kernel is packed."""
    return Codec.F32 if quality is Quality.EXACT else Codec.F16


# ── choosing ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Measured:
    """One kernel with ||R||^2, ||W_clean||^2 and the cosine of d_rob to d_std."""

    layer: Layer
    energy: float
    weight: float
    cosine: float
    coefficient: float

    @property
    def relative_energy(self) -> float:
        """||R||^2 / ||W||^2, by which kernels are compared; 0 where the weight is zero."""
        return self.energy / self.weight if self.weight > 0 else 0.0

    @property
    def density(self) -> float:
        """Relative energy an element."""
        return self.relative_energy / max(1, self.layer.numel)


def select(ordered: Sequence[Measured], selection: Selection) -> list[Measured]:
    """Choose kernels, given in forward order, and keep that order.

    Raises `NothingToExtract` where none differs, or none is chosen.
    """
    if not any(kernel.energy > 0 for kernel in ordered):
        raise errors.NothingToExtract(
            "no kernel of the robust model differs from the clean one, or only in what projection "
            "takes away"
        )
    kept = chosen(ordered, selection)
    if not any(kernel.energy > 0 for kernel in kept):
        raise errors.NothingToExtract("none of the chosen kernels differs between the models")
    return kept


def chosen(ordered: Sequence[Measured], selection: Selection) -> list[Measured]:
    """The kernels that a selection means, in their order, whether they differ or not.

    Raises `NothingToExtract` where a name matches none.
    """
    wanted = _wanted(ordered, selection)
    return [kernel for kernel in ordered if kernel in wanted]


def _wanted(ordered: Sequence[Measured], selection: Selection) -> set[Measured]:
    match selection:
        case ByEnergy(share):
            return _densest(ordered, share)
        case First(count):
            return set(ordered[:count])
        case Named(patterns):
            return {kernel for pattern in patterns for kernel in _called(ordered, pattern)}
        case All():
            return set(ordered)


def _densest(ordered: Sequence[Measured], share: float) -> set[Measured]:
    wanted = share * sum(kernel.relative_energy for kernel in ordered)
    chosen: set[Measured] = set()
    covered = 0.0
    for kernel in sorted(ordered, key=lambda k: (-k.density, k.layer.address)):
        if kernel.relative_energy == 0 or covered >= wanted:
            break
        covered += kernel.relative_energy
        chosen.add(kernel)
    return chosen


def _called(ordered: Sequence[Measured], pattern: str) -> list[Measured]:
    found = [
        kernel
        for kernel in ordered
        if fnmatchcase(kernel.layer.name, pattern)
        or fnmatchcase(str(kernel.layer.address), pattern)
    ]
    if not found:
        raise errors.NothingToExtract(f"no kernel is called {pattern!r:.100}")
    return found

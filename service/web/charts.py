"""Pictures as numbers: where each bar of a chart stands. The templates write them as SVG.

Across, everything is a percentage of the width, and down it is in pixels: so a chart fills whatever
room it gets while its text keeps its size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Final

from service.web.profile import Kernel, Profile

TITLE_PX: Final = 26
PLOT_PX: Final = 130
GAP_PX: Final = 22
STRIP_PX: Final = 14
"""The row of marks under the bars, which tells kept layers apart without colour."""

TICKS: Final = 3
BAR_SHARE: Final = 0.72
DENSE: Final = 80
"""From so many bars on they stand without gaps: a gap would be narrower than a pixel."""
NAME_CHARACTERS: Final = 32


@dataclass(frozen=True, slots=True)
class Bar:
    """One layer in one panel: `x` and `width` in percent, the rest in pixels from the top."""

    x: float
    width: float
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Tick:
    """A line across a panel, and its label."""

    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One quantity of all layers."""

    title: str
    title_y: float
    ticks: tuple[Tick, ...]
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Slot:
    """The column that one layer takes, in percent, and its bar in each panel."""

    x: float
    width: float
    kernel: Kernel
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class ProfileChart:
    """The layer profile of a patch."""

    height: int
    panels: tuple[Panel, ...]
    slots: tuple[Slot, ...]
    marks: tuple[Bar, ...]
    floors: tuple[Bar, ...]
    """Where noise ends, in the first panel, as far as that can be seen."""
    title: str
    description: str
    first: str
    last: str


def profile_chart(profile: Profile) -> ProfileChart:
    """Draw how much each layer changes, and what of the change it holds, in forward order."""
    kernels = profile.kernels
    bottom = TITLE_PX + PLOT_PX
    second = bottom + GAP_PX
    panels = (
        _panel("Change of the layer, ‖R‖ / ‖W‖", [k.relative_norm for k in kernels], 0, _plain),
        _panel("Share of the energy", [k.energy_share for k in kernels], second, _percent),
    )
    strip = second + TITLE_PX + PLOT_PX + STRIP_PX / 2
    columns = zip(*(panel.bars for panel in panels), strict=True)
    return ProfileChart(
        height=round(strip + STRIP_PX / 2),
        panels=panels,
        slots=tuple(
            Slot(round(100 * at / len(kernels), 4), round(100 / len(kernels), 4), kernel, bars)
            for at, (kernel, bars) in enumerate(zip(kernels, columns, strict=True))
        ),
        marks=tuple(
            Bar(*_across(at, len(kernels)), strip - 2, 5)
            for at, kernel in enumerate(kernels)
            if kernel.kept
        ),
        floors=_floors(kernels),
        title="Layer profile",
        description=_described(profile),
        first=_short(kernels[0].name),
        last=_short(kernels[-1].name),
    )


def _floors(kernels: Sequence[Kernel]) -> tuple[Bar, ...]:
    """The noise floor of each layer, unless it lies within a pixel of the axis."""
    _, peak = _scale(max(kernel.relative_norm for kernel in kernels))
    bottom = TITLE_PX + PLOT_PX
    heights = [(kernel.noise_floor or 0.0) / peak * PLOT_PX for kernel in kernels]
    return tuple(
        Bar(*_across(at, len(kernels)), round(bottom - height, 2), 0)
        for at, height in enumerate(heights)
        if 1 <= height <= PLOT_PX
    )


def _described(profile: Profile) -> str:
    kernels, kept = profile.kernels, profile.kept
    loudest = max(kernels, key=lambda kernel: kernel.relative_norm)
    held = sum(kernel.energy_share for kernel in kept)
    return (
        f"Two rows of bars, one bar for each of {len(kernels)} layers in forward order. "
        f"The patch keeps {len(kept)} of them, which hold {held:.1%} of the energy of the change. "
        f"The layer that changes most is {loudest.name}, by {loudest.relative_norm:.3f} of its "
        "norm. The table below has all numbers."
    )


def _panel(title: str, values: Sequence[float], top: float, label: Callable[[float], str]) -> Panel:
    step, peak = _scale(max(values))
    bottom = top + TITLE_PX + PLOT_PX

    def height(value: float) -> float:
        return round(value / peak * PLOT_PX, 2)

    return Panel(
        title=title,
        title_y=top + 12,
        bars=tuple(
            Bar(*_across(at, len(values)), round(bottom - height(value), 2), height(value))
            for at, value in enumerate(values)
        ),
        ticks=tuple(
            Tick(round(bottom - height(step * line), 2), label(step * line))
            for line in range(round(peak / step) + 1)
        ),
    )


def _across(at: int, count: int) -> tuple[float, float]:
    """Where bar `at` of `count` stands: its left edge and its width, in percent."""
    share = 1.0 if count >= DENSE else BAR_SHARE
    return round(100 * (at + (1 - share) / 2) / count, 4), round(100 * share / count, 4)


def _scale(largest: float) -> tuple[float, float]:
    """A round step, and the least multiple of it that is not below the largest value."""
    if largest <= 0:
        return 1.0, 1.0
    rough = largest / TICKS
    power = 10.0 ** floor(log10(rough))
    step = next(power * round_ for round_ in (1, 2, 2.5, 5, 10) if power * round_ >= rough * 0.999)
    return step, step * ceil(largest / step * 0.999)


def _plain(value: float) -> str:
    return f"{value:.3g}"


def _percent(value: float) -> str:
    return f"{value * 100:.3g}%"


def _short(name: str) -> str:
    """A name with its middle left out, where it is long: its ends tell layers apart."""
    if len(name) <= NAME_CHARACTERS:
        return name
    half = (NAME_CHARACTERS - 1) // 2
    return f"{name[:half]}…{name[-half:]}"

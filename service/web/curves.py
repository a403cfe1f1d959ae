"""Curves of accuracy over scale: sorted into pictures, and where each point of one stands.

Across in percent of the width and down in pixels, as in `charts`. A line is drawn piece by piece,
since SVG knows percentages in the ends of a line and not in a path.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby, pairwise
from math import ceil, floor
from typing import Final

from service.names import scale_text
from service.web.charts import Tick
from service.web.rows.evaluations import Point

STUDIES_SHOWN: Final = 6
CURVES_DRAWN: Final = 8
"""As many as can be told apart; the table has all."""

TOP_PX: Final = 12
PLOT_PX: Final = 190
FOOT_PX: Final = 22
EDGE_PERCENT: Final = 3.0
LABEL_PERCENT: Final = 12.0
"""Room of a number below the picture on a narrow screen."""
_STEPS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25)
_LINES: Final = 5


@dataclass(frozen=True, slots=True)
class Curve:
    """One corruption at one severity, along the scale."""

    corruption: str
    severity: Decimal | None
    points: tuple[Point, ...]

    @property
    def name(self) -> str:
        """What the images went through."""
        if self.severity is None:
            return self.corruption
        return f"{self.corruption} {scale_text(self.severity)}"

    @property
    def by_scale(self) -> dict[Decimal, Point]:
        """Its points, to be looked up."""
        return {point.scale: point for point in self.points}

    @property
    def images(self) -> str:
        """How many images each point was measured on."""
        least, most = (f(point.images for point in self.points) for f in (min, max))
        return str(least) if least == most else f"{least} to {most}"


@dataclass(frozen=True, slots=True)
class Study:
    """All curves of one data set on one base."""

    base: str
    data_set: str
    curves: tuple[Curve, ...]

    @property
    def scales(self) -> list[Decimal]:
        """Every scale that any of them was measured at."""
        return sorted({point.scale for curve in self.curves for point in curve.points})


@dataclass(frozen=True, slots=True)
class Mark:
    """A measured point with its error bar: across in percent, down in pixels."""

    x: float
    y: float
    high: float
    low: float
    point: Point


@dataclass(frozen=True, slots=True)
class Trace:
    """A drawn curve."""

    curve: Curve
    marks: tuple[Mark, ...]

    @property
    def pieces(self) -> list[tuple[Mark, Mark]]:
        """The straight pieces between its points."""
        return list(pairwise(self.marks))


@dataclass(frozen=True, slots=True)
class Column:
    """A line down the picture at a scale, and its label."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class CurveChart:
    """Accuracy over scale."""

    height: int
    bottom: float
    ticks: tuple[Tick, ...]
    columns: tuple[Column, ...]
    traces: tuple[Trace, ...]
    description: str


def studies(points: Iterable[Point]) -> list[Study]:
    """Sort points, ordered as they are read, by base and data set, and into curves."""
    found = []
    for (base, data_set), own in groupby(points, lambda each: (each.base, each.data_set)):
        curves = tuple(
            Curve(corruption, severity, tuple(along))
            for (corruption, severity), along in groupby(
                own, lambda each: (each.corruption, each.severity)
            )
        )
        found.append(Study(base, data_set, curves))
    return found


def curve_chart(study: Study) -> CurveChart:
    """Draw the first curves of a study with their standard errors."""
    drawn = study.curves[:CURVES_DRAWN]
    across = _Across(study.scales)
    down = _Down([point for curve in drawn for point in curve.points])
    return CurveChart(
        height=TOP_PX + PLOT_PX + FOOT_PX,
        bottom=TOP_PX + PLOT_PX,
        ticks=down.ticks,
        columns=across.ticks,
        traces=tuple(
            Trace(curve, tuple(_mark(point, across, down) for point in curve.points))
            for curve in drawn
        ),
        description=_described(study),
    )


def _mark(point: Point, across: "_Across", down: "_Down") -> Mark:
    high, low = min(1.0, point.accuracy + point.error), max(0.0, point.accuracy - point.error)
    return Mark(across.at(point.scale), down.at(point.accuracy), down.at(high), down.at(low), point)


class _Across:
    """Scales laid out over the width."""

    def __init__(self, scales: Sequence[Decimal]) -> None:
        self._first, self._last = float(scales[0]), float(scales[-1])
        kept: list[Column] = []
        for scale in scales:
            x = self.at(scale)
            if not kept or x - kept[-1].x >= LABEL_PERCENT:
                kept.append(Column(x, scale_text(scale)))
        self.ticks = tuple(kept)

    def at(self, scale: Decimal) -> float:
        """Where a scale stands, in percent; a single one in the middle."""
        if self._first == self._last:
            return 50.0
        share = (float(scale) - self._first) / (self._last - self._first)
        return round(EDGE_PERCENT + (100 - 2 * EDGE_PERCENT) * share, 3)


class _Down:
    """Accuracies laid out over the height, between round numbers around what was measured."""

    def __init__(self, points: Sequence[Point]) -> None:
        low = max(0.0, min(point.accuracy - point.error for point in points))
        high = min(1.0, max(point.accuracy + point.error for point in points))
        step = next((s for s in _STEPS if (high - low) / s <= _LINES - 1), _STEPS[-1])
        first = floor(low / step + 1e-9)
        last = max(first + 1, ceil(high / step - 1e-9))
        self._low, self._high = first * step, last * step
        self.ticks = tuple(
            Tick(self.at(line * step), f"{line * step * 100:.3g}%")
            for line in range(first, last + 1)
        )

    def at(self, accuracy: float) -> float:
        """Where an accuracy stands, in pixels from the top."""
        share = (accuracy - self._low) / (self._high - self._low)
        return round(TOP_PX + PLOT_PX * (1 - share), 2)


def _described(study: Study) -> str:
    """The picture in words."""
    told = []
    for curve in study.curves[:CURVES_DRAWN]:
        first, last = curve.points[0], curve.points[-1]
        told.append(
            f"{curve.name}: {first.accuracy:.1%} at scale {scale_text(first.scale)}, "
            f"{last.accuracy:.1%} at {scale_text(last.scale)}."
        )
    return " ".join(["Accuracy over the scale of the patch, one line for each corruption.", *told])

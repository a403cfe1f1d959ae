"""The plots of the report: one figure an experiment, a panel for each net."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks.paper.experiments import METHODS
from benchmarks.paper.judging import Judge
from benchmarks.paper.measuring import Row
from benchmarks.paper.nets import NETS
from benchmarks.paper.statistics import (
    Spread,
    gain,
    grouped,
    over_seeds,
    own,
    recovery,
    robust_accuracy,
)
from benchmarks.paper.tables import loss, packed
from benchmarks.paper.trainings import CLEAN

Panel = Any  # matplotlib.axes.Axes; matplotlib brings no types that mypy reads

STYLE: Final[dict[Any, Any]] = {
    "figure.dpi": 100,
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text as text: a quarter of the bytes
    "svg.hashsalt": "patchbay",  # the same rows draw the same bytes
}


def draw(name: str, rows: Sequence[Row], judge: Judge, folder: Path) -> Path | None:
    """Draw an experiment into `folder`; None where there is nothing to draw."""
    nets = [net for net in NETS if any(row.net == net for row in rows)]
    if not nets:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(nets), 3.4), layout="constrained")
        panels = figure.subplots(1, len(nets), squeeze=False)[0]
        for panel, net in zip(panels, nets, strict=True):
            panel.set_title(net)
            PLOTS[name](panel, [row for row in rows if row.net == net], judge)
            panel.legend(fontsize=8)
        file = folder / f"{name}.svg"
        figure.savefig(file, metadata={"Date": None})
    return file


def _curve(panel: Panel, at: Sequence[float], spreads: Sequence[Spread], label: str) -> None:
    """Means in points, with their standard errors where there are any."""
    panel.errorbar(
        at,
        [100 * one.mean for one in spreads],
        yerr=[100 * np.nan_to_num(one.error) for one in spreads],
        marker="o",
        markersize=3,
        capsize=2,
        label=label,
    )


def _by_corruption(panel: Panel, rows: Sequence[Row], at: Callable[[Row], float]) -> None:
    for corruption, some in grouped(rows, own).items():
        groups = dict(sorted(grouped(some, at).items()))
        _curve(panel, list(groups), [over_seeds(g, recovery) for g in groups.values()], corruption)


def shallow(panel: Panel, rows: Sequence[Row], _judge: Judge) -> None:
    """Recovery by the number of kernels, from the first on; the deep ones as a line."""
    first = [row for row in rows if row.selection.startswith("first")]
    deep = [row for row in rows if not row.selection.startswith("first")]
    _by_corruption(panel, first, lambda row: float(row.selection.split()[1]))
    if deep:
        share = 100 * np.mean([row.parameters_kept for row in deep])
        label = f"only the deep ones ({share:.0f} % of the parameters), mean"
        height = 100 * over_seeds(deep, recovery).mean
        panel.axhline(height, color="black", linestyle=":", label=label)
    panel.set(xlabel="first kernels kept", ylabel="recovery, %")


def by_energy(panel: Panel, rows: Sequence[Row], _judge: Judge) -> None:
    """Recovery by the share of the energy that is kept."""
    for pair, some in grouped(rows, lambda row: row.pair).items():
        groups = grouped(some, lambda row: row.selection).values()
        points = sorted((float(np.mean([r.energy_kept for r in g])), g) for g in groups)
        spreads = [over_seeds(group, recovery) for _, group in points]
        _curve(panel, [100 * energy for energy, _ in points], spreads, f"{pair} pairs")
    panel.set(xlabel="energy kept, %", ylabel="recovery, %")


def scales(panel: Panel, rows: Sequence[Row], _judge: Judge) -> None:
    """Accuracy on corrupted and on clean images by scale."""
    for corruption, some in grouped(rows, own).items():
        groups = dict(sorted(grouped(some, lambda row: float(row.scales[0])).items()))
        at = [0.0, *groups]
        for seen, style in ((corruption, "-"), (CLEAN, ":")):
            means = [np.mean([row.unpatched[seen] for row in some])]
            means += [np.mean([row.accuracy[seen] for row in group]) for group in groups.values()]
            label = corruption if seen == corruption else None
            color = panel.lines[-1].get_color() if seen == CLEAN else None
            panel.plot(at, 100 * np.array(means), style, color=color, label=label)
    panel.set(xlabel="scale (dotted: on clean images)", ylabel="accuracy, %")


def quality(panel: Panel, rows: Sequence[Row], judge: Judge) -> None:
    """Accuracy lost by the ratio to the base, for each selection and packer."""
    groups = packed(rows)
    lines: dict[str, list[tuple[float, float]]] = {}
    for (net, selection, _, method), some in groups.items():
        lost, _worst = loss(judge, groups[net, selection, "exact", ""], some)
        label = f"{'min-max' if method else 'registry'}, {selection}"
        ratio = float(np.mean([row.ratio for row in some]))
        lines.setdefault(label, []).append((ratio, 100 * lost.mean))
    for label, points in lines.items():
        panel.plot(*zip(*sorted(points), strict=True), marker="o", markersize=3, label=label)
    panel.axhline(0.5, color="black", linestyle=":")
    panel.set(xscale="log", xlabel="base / patch, bytes", ylabel="accuracy lost, points")


def composition(panel: Panel, rows: Sequence[Row], _judge: Judge) -> None:
    """Mean accuracy over the corruptions by how many patches there are."""
    for method in METHODS:
        some = [row for row in rows if row.method == method]
        counts = dict(sorted(grouped(some, lambda row: len(row.patches)).items()))
        spreads = [over_seeds(group, robust_accuracy) for group in counts.values()]
        _curve(panel, list(counts), spreads, method)
    panel.set(xlabel="patches at once", ylabel="accuracy on their corruptions, %")
    panel.set_xticks(sorted({len(row.patches) for row in rows}))


def gains(panel: Panel, rows: Sequence[Row], _judge: Judge) -> None:
    """Points gained on a base that the patch does not come from, beside what it could gain."""
    full = [row for row in rows if float(row.scales[0]) == 1]
    bars = grouped(full, lambda row: row.method or f"patch, {row.selection}")
    width = 0.8 / (len(bars) + 1)
    for place, (label, some) in enumerate(bars.items()):
        spreads = [over_seeds(group, gain) for group in grouped(some, own).values()]
        at = np.arange(len(spreads)) + place * width
        errors = [100 * np.nan_to_num(one.error) for one in spreads]
        panel.bar(at, [100 * one.mean for one in spreads], width, yerr=errors, label=label)
    by_corruption = grouped(full, own)
    ceiling = [
        100 * np.mean([row.robust[corruption] - row.unpatched[corruption] for row in some])
        for corruption, some in by_corruption.items()
    ]
    at = np.arange(len(ceiling)) + len(bars) * width
    panel.bar(at, ceiling, width, color="lightgrey", label="the robust net itself")
    panel.set_xticks(np.arange(len(ceiling)) + 0.3, list(by_corruption), rotation=20)
    panel.set(ylabel="gain on corrupted images, points")


PLOTS: Final[Mapping[str, Callable[[Panel, Sequence[Row], Judge], None]]] = {
    "shallow": shallow,
    "recovery": by_energy,
    "scale": scales,
    "quality": quality,
    "composition": composition,
    "transfer": gains,
    "update": gains,
}

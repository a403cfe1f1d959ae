"""The tables of the report: one function an experiment, from rows to lines of Markdown."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from benchmarks.paper.experiments import BALANCED, METHODS
from benchmarks.paper.identification import Identified
from benchmarks.paper.judging import Judge
from benchmarks.paper.measuring import Row
from benchmarks.paper.statistics import (
    Spread,
    difference,
    gain,
    grouped,
    over_seeds,
    own,
    recovery,
    robust_accuracy,
)
from benchmarks.paper.trainings import CLEAN

Line = dict[str, str]
TEXT: Final = frozenset(
    {
        "net",
        "pair",
        "base",
        "selection",
        "quality",
        "patches",
        "unknown",
        "claim",
        "measured",
        "wanted",
    }
)
"""Columns to the left; figures stand to the right."""


def markdown(lines: Sequence[Line]) -> str:
    """A table whose columns are the keys of its first line."""
    if not lines:
        return "Nothing is measured yet.\n"
    columns = list(lines[0])
    aligned = ["---" if column in TEXT else "---:" for column in columns]
    cells = [columns, aligned, *([line[column] for column in columns] for line in lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


# ── what the lines of several tables say ─────────────────────────────────────────────────────


def what(rows: Sequence[Row]) -> Line:
    """What every line says: how chosen, how packed, how large, how much comes back."""
    first = rows[0]
    packer = first.method if first.method.startswith("min-max") else first.quality
    return {
        "net": first.net,
        "selection": first.selection,
        "quality": packer,
        "bytes": f"{np.mean([row.bytes for row in rows]):,.0f}",
        "ratio": f"{np.mean([row.ratio for row in rows]):.1f}x",
        "recovery, %": over_seeds(rows, recovery).text(),
    }


def kept(rows: Sequence[Row]) -> Line:
    """How much of the energy and of the parameters the patch keeps; where it works least."""
    at = {c: over_seeds(some, recovery).mean for c, some in grouped(rows, own).items()}
    worst = min(at, key=lambda corruption: at[corruption])
    return {
        "energy kept, %": f"{100 * np.mean([row.energy_kept for row in rows]):.0f}",
        "parameters, %": f"{100 * np.mean([row.parameters_kept for row in rows]):.1f}",
        "worst corruption, %": f"{100 * at[worst]:.1f} ({worst})",
    }


def before_and_after(rows: Sequence[Row]) -> Line:
    """What is read rightly without and with the patch, and by the net that was trained for it."""

    def mean(accuracies: Callable[[Row], Mapping[str, float]], seen: Callable[[Row], str]) -> str:
        return f"{100 * np.mean([accuracies(row)[seen(row)] for row in rows]):.1f}"

    def change(seen: Callable[[Row], str]) -> str:
        return f"{mean(lambda row: row.unpatched, seen)} → {mean(lambda row: row.accuracy, seen)}"

    return {
        "corrupted, %": change(own),
        "gain, points": over_seeds(rows, gain).text(),
        "robust net, %": mean(lambda row: row.robust, own),
        "clean, %": change(lambda _: CLEAN),
    }


# ── an experiment each ───────────────────────────────────────────────────────────────────────


def quality(rows: Sequence[Row], judge: Judge) -> Iterator[Line]:
    """Bytes against loss, the paper's quantizer beside the registry's qualities."""
    groups = packed(rows)
    for (net, selection, *_), some in groups.items():
        lost, worst = loss(judge, groups[net, selection, "exact", ""], some)
        yield what(some) | {"lost, points": lost.text(2), "at worst": f"{100 * worst + 0.0:.2f}"}


def packed(rows: Sequence[Row]) -> dict[tuple[str, str, str, str], list[Row]]:
    """Rows by net, selection, quality and quantizer."""
    return grouped(rows, lambda row: (row.net, row.selection, row.quality, row.method))


def loss(judge: Judge, exact: Sequence[Row], some: Sequence[Row]) -> tuple[Spread, float]:
    """What packing loses to the exact signature: over all corruptions, and at the worst."""
    by_corruption = grouped(some, own).values()
    return (
        -difference(judge, some, exact),
        max(-difference(judge, rows, exact).mean for rows in by_corruption),
    )


def _lines(
    rows: Sequence[Row], key: Callable[[Row], Hashable], line: Callable[[Sequence[Row]], Line]
) -> Iterator[Line]:
    return (line(some) for some in grouped(rows, key).values())


def shallow(rows: Sequence[Row], _judge: Judge) -> Iterator[Line]:
    """The first k kernels, and the deep ones."""
    return _lines(rows, lambda row: (row.net, row.selection), lambda some: what(some) | kept(some))


def by_energy(rows: Sequence[Row], _judge: Judge) -> Iterator[Line]:
    """What comes back by the energy kept, on matched and foreign pairs."""
    return _lines(
        rows,
        lambda row: (row.net, row.pair, row.selection),
        lambda some: {"pair": some[0].pair} | what(some) | kept(some),
    )


def scales(rows: Sequence[Row], _judge: Judge) -> Iterator[Line]:
    """One patch at several scales."""
    return _lines(
        rows,
        lambda row: (row.net, _scale(row)),
        lambda some: _scaled(some) | before_and_after(some),
    )


def transfer(rows: Sequence[Row], _judge: Judge) -> Iterator[Line]:
    """Patches of one data set on the clean net of the other; and that one's own patch."""
    return _lines(
        rows,
        lambda row: (row.net, row.method, row.selection, _scale(row)),
        lambda some: (
            {"patches": some[0].method or "the other data set's"}
            | _scaled(some)
            | before_and_after(some)
        ),
    )


def update(rows: Sequence[Row], _judge: Judge) -> Iterator[Line]:
    """Old patches on nets that were trained further."""
    return _lines(rows, lambda row: row.net, lambda some: what(some) | before_and_after(some))


def composition(rows: Sequence[Row], judge: Judge) -> Iterator[Line]:
    """Several patches at once: mean accuracy over their corruptions by how scales are found."""
    for some in grouped(rows, lambda row: (row.net, tuple(row.patches))).values():
        methods = grouped(some, lambda row: row.method)
        plain = methods["sum"]
        accuracies = {
            f"{name}, %": over_seeds(methods[name], robust_accuracy).text()
            if name in methods
            else "refused"
            for name in METHODS
        }
        best = methods.get(BALANCED, plain)
        yield (
            {"patches": " + ".join(plain[0].patches)}
            | what(best)
            | accuracies
            | {"balanced over sum, points": difference(judge, best, plain).text(2)}
            | {"clean, %": over_seeds(best, lambda row: row.accuracy[CLEAN]).text()}
        )


def identification(answers: Sequence[Identified]) -> Iterator[Line]:
    """How often the nearest signature is the right one, and what the service says of that."""
    for (net, data), some in grouped(answers, lambda one: (one.net, one.data)).items():
        wrong_but_trusted = [one for one in some if one.trusted and not one.right]
        yield {
            "net": net,
            "unknown": "the same data set, other runs" if data == "a" else "the other data set",
            "right": f"{sum(one.right for one in some)} of {len(some)}",
            "trusted": f"{sum(one.trusted for one in some)}",
            "trusted but wrong": f"{len(wrong_but_trusted)}",
            "cosine to the right one": _mean([one.cosines.get(one.corruption, 0) for one in some]),
            "to the nearest other": _mean([_other(one) for one in some]),
        }


def _mean(cosines: Sequence[float]) -> str:
    return f"{np.mean(cosines):.2f}"


def _other(one: Identified) -> float:
    others = (cosine for label, cosine in one.cosines.items() if label != one.corruption)
    return max(others, default=0)


def _scale(row: Row) -> float:
    (scale,) = row.scales
    return float(scale)


def _scaled(rows: Sequence[Row]) -> Line:
    return what(rows) | {"scale": f"{_scale(rows[0]):g}"}


TABLES: Final[Mapping[str, Callable[[Sequence[Row], Judge], Iterator[Line]]]] = {
    "shallow": shallow,
    "recovery": by_energy,
    "scale": scales,
    "quality": quality,
    "composition": composition,
    "transfer": transfer,
    "update": update,
}
"""In the order in which they are reported."""

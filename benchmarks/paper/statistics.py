"""Rows put together: means over seeds with their standard errors, and paired differences."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import inf, isnan, nan, sqrt
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper.judging import Judge, Rights
from benchmarks.paper.measuring import Row
from benchmarks.paper.trainings import CLEAN

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over seeds and its standard error; that is NaN for a single seed."""

    mean: float
    error: float
    count: int

    @property
    def in_errors(self) -> float:
        """The mean in standard errors; 0 where both are 0."""
        return self.mean / self.error if self.error else inf * self.mean if self.mean else 0.0

    def __neg__(self) -> "Spread":
        return Spread(-self.mean, self.error, self.count)

    def text(self, digits: int = 1, unit: float = 100) -> str:
        """`91.3 ± 0.4`, by default of a share in points."""
        mean = f"{round(unit * self.mean, digits) + 0.0:.{digits}f}"  # never -0.0
        return mean if isnan(self.error) else f"{mean} ± {unit * self.error:.{digits}f}"


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard error of values that do not depend on each other."""
    count = len(values)
    error = float(np.std(values, ddof=1)) / sqrt(count) if count > 1 else nan
    return Spread(float(np.mean(values)), error, count)


def grouped(rows: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Rows by what `key` says of them, in order of first appearance."""
    groups: dict[Key, list[Item]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def over_seeds(rows: Iterable[Row], value: Callable[[Row], float]) -> Spread:
    """Each seed's mean over its rows, then mean and error over seeds."""
    seeds = grouped(rows, lambda row: row.seed)
    return spread([float(np.mean([value(row) for row in some])) for some in seeds.values()])


def own(row: Row) -> str:
    """The corruption that a row with one patch is about."""
    (corruption,) = row.patches
    return corruption


def recovery(row: Row) -> float:
    """The share of the gap that is given back; of several patches, the mean over corruptions."""
    return float(np.mean([row.recovery(seen) for seen in row.accuracy if seen != CLEAN]))


def robust_accuracy(row: Row) -> float:
    """The mean of right answers over the corruptions that a row is about."""
    return float(np.mean([share for seen, share in row.accuracy.items() if seen != CLEAN]))


def gain(row: Row) -> float:
    """By how much more is read rightly on the corruption that a row is about."""
    return row.accuracy[own(row)] - row.unpatched[own(row)]


def difference(judge: Judge, ones: Iterable[Row], others: Iterable[Row]) -> Spread:
    """By how much the ones read more than the others, each beside that of its seed and patches.

    The standard error is the larger of two: over seeds, of which there are few, and over the
    images, which both of a pair saw alike.
    """
    beside = {(row.seed, *row.patches): row for row in others}
    means, errors = [], []
    for some in grouped(ones, lambda row: row.seed).values():
        gains = [
            gain for row in some for gain in _gains(judge, row, beside[row.seed, *row.patches])
        ]
        by_image = np.mean(gains, axis=0)
        means.append(float(by_image.mean()))
        errors.append(float(by_image.std(ddof=1)) / sqrt(len(by_image)))
    over = spread(means)
    of_images = sqrt(sum(error**2 for error in errors)) / len(errors)
    return Spread(over.mean, float(np.fmax(over.error, of_images)), over.count)


def _gains(judge: Judge, one: Row, other: Row) -> list[NDArray[np.int64]]:
    """For each corruption and image: 1, 0 or -1."""
    seen = [corruption for corruption in one.accuracy if corruption != CLEAN]
    return [
        _rights(judge, one, corruption).astype(int) - _rights(judge, other, corruption)
        for corruption in seen
    ]


def _rights(judge: Judge, row: Row, seen: str) -> Rights:
    rights = judge.known(row.judged, row.data, seen)
    if rights is None:
        raise LookupError(f"the judgement of {row.judged} on {seen} is not in the ledger")
    return rights

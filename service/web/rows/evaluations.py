"""Evaluation results of a patch version, put together over seeds: a row for each point of a curve.

Several seeds of one condition are one point: their mean, weighed by images, and a standard error
from the images or from how the seeds differ, whichever is larger.
"""

from dataclasses import dataclass
from decimal import Decimal
from math import sqrt
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.db.tables.evaluations import Evaluation
from service.db.tables.models import Model, ModelVersion
from service.web.rows.lines import reference

POINTS_SHOWN: Final = 600


@dataclass(frozen=True, slots=True)
class Point:
    """How accurate a base is with the patch at one scale, under one condition."""

    base: str
    data_set: str
    corruption: str
    severity: Decimal | None
    scale: Decimal
    accuracy: float
    images: int
    seeds: int
    spread: float | None
    """Standard deviation over seeds; None for a single one."""

    @property
    def error(self) -> float:
        """One standard error of `accuracy`."""
        sampled = sqrt(max(0.0, self.accuracy * (1 - self.accuracy)) / self.images)
        return max(sampled, (self.spread or 0.0) / sqrt(self.seeds))


def of_version(session: Session, version_id: int) -> list[Point]:
    """The points of a patch version on living bases, a curve at a time, along the scale."""
    condition = (
        reference(ModelVersion, Model),
        Evaluation.data_set,
        Evaluation.corruption,
        Evaluation.severity,
        Evaluation.scale,
    )
    images = func.sum(Evaluation.n)
    query = (
        select(
            *condition,
            func.sum(Evaluation.accuracy * Evaluation.n) / images,
            images,
            func.count(),
            func.stddev_samp(Evaluation.accuracy),
        )
        .join(ModelVersion, ModelVersion.id == Evaluation.base_version_id)
        .join(Model, Model.id == ModelVersion.model_id)
        .where(Evaluation.patch_version_id == version_id, ModelVersion.deleted_at.is_(None))
        .group_by(*condition)
        .order_by(*condition)
        .limit(POINTS_SHOWN)
    )
    return [
        Point(base, data, corruption, severity, scale, float(accuracy), int(n), seeds, spread)
        for base, data, corruption, severity, scale, accuracy, n, seeds, spread in session.execute(
            query
        )
    ]

"""Evaluation results of patch versions: recorded once a condition, and searched."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.evaluations import Evaluation
from service.db.tables.models import ModelVersion
from service.db.tables.patches import Patch, PatchVersion
from service.layout import fit
from service.names import Name, scale_text
from service.registry import models, patches
from service.registry.access import Principal
from service.schemas.evaluations import Result


@dataclass(frozen=True, slots=True)
class Search:
    """Which results are asked for; None: any."""

    patch: Name | None = None
    version: int | None = None
    base: ModelVersion | None = None
    data_set: str | None = None
    corruption: str | None = None


def publish(
    session: Session,
    patch: PatchVersion,
    base: ModelVersion,
    results: Sequence[Result],
    *,
    by: Principal,
) -> tuple[list[Evaluation], bool]:
    """Record results; answers whether any of them is new. All of them, or none.

    What was recorded of one condition stays: the same result again is no news, another one is
    refused. Raises `DoesNotFit`, `ResultsDiffer`, `BadRequest` where two contradict each other.
    """
    reasons = fit.check(models.headers(session, base.weight_files), patches.needs(patch))
    if reasons:
        raise errors.DoesNotFit(patch.reference, base.reference, reasons[:10], len(reasons[10:]))
    new = False
    found: dict[int, Evaluation] = {}
    for result in results:
        row, made = _record(session, patch, base, result, by)
        new |= made
        found[row.id] = row
    return list(found.values()), new


def _record(
    session: Session, patch: PatchVersion, base: ModelVersion, result: Result, by: Principal
) -> tuple[Evaluation, bool]:
    condition: dict[str, Any] = {
        "patch_version_id": patch.id,
        "base_version_id": base.id,
        **result.model_dump(exclude={"accuracy", "n"}),
        "scale": result.scale,
    }
    values = {**condition, "accuracy": result.accuracy, "n": result.n, "created_by": by.id}
    made = session.scalar(
        insert(Evaluation).values(values).on_conflict_do_nothing().returning(Evaluation.id)
    )
    if made is not None:
        return session.get_one(Evaluation, made), True
    known = session.scalars(
        select(Evaluation).where(
            *(
                getattr(Evaluation, column).is_not_distinct_from(value)
                for column, value in condition.items()
            )
        )
    ).one()
    if (known.accuracy, known.n) != (result.accuracy, result.n):
        what = f"{result.corruption} on {result.data_set} at scale {scale_text(result.scale)}"
        raise errors.ResultsDiffer(patch.reference, what, known.accuracy, known.n)
    return known, False


def listed(
    session: Session, wanted: Search, *, before: int | None, limit: int
) -> Sequence[Evaluation]:
    """Some results of living versions, newest first, before the one of id `before`."""
    query = select(Evaluation).join(Evaluation.patch_version)
    query = query.where(PatchVersion.deleted_at.is_(None))
    if wanted.patch is not None:
        line = select(Patch.id).where(Patch.key == wanted.patch.key).scalar_subquery()
        query = query.where(PatchVersion.patch_id == line)
    if wanted.version is not None:
        query = query.where(PatchVersion.number == wanted.version)
    if wanted.base is not None:
        query = query.where(Evaluation.base_version_id == wanted.base.id)
    if wanted.data_set is not None:
        query = query.where(Evaluation.data_set == wanted.data_set.lower())
    if wanted.corruption is not None:
        query = query.where(Evaluation.corruption == wanted.corruption.lower())
    if before is not None:
        query = query.where(Evaluation.id < before)
    return session.scalars(query.order_by(Evaluation.id.desc()).limit(limit)).unique().all()

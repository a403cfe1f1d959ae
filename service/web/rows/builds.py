"""Builds as their page lists them: what was built, how large it is, and since when."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import func, or_, select, tuple_
from sqlalchemy.orm import Session

from service.db.tables.builds import BUILDING, Build, BuildFile
from service.db.tables.models import Model, ModelVersion
from service.db.tables.patches import Patch, PatchVersion
from service.db.tables.recipes import Recipe, RecipePatch
from service.web.rows.lines import full_name, reference


@dataclass(frozen=True, slots=True)
class PartRow:
    """A patch of a recipe."""

    patch: str
    version: int
    scale: Decimal


@dataclass(frozen=True, slots=True)
class BuildRow:
    """A build, its recipe and the size of its overlays."""

    digest: str
    state: str
    operation_id: str | None
    created_by: str
    created_at: datetime
    base: str
    parts: list[PartRow]
    overlay_bytes: int


def listed(session: Session, *, after: tuple[datetime, str] | None, limit: int) -> list[BuildRow]:
    """Some builds, newest first."""
    query = (
        select(
            Build.recipe_digest,
            Build.state,
            Build.operation_id,
            Build.created_by,
            Build.created_at,
            reference(ModelVersion, Model),
        )
        .join(Recipe, Recipe.digest == Build.recipe_digest)
        .join(ModelVersion, ModelVersion.id == Recipe.base_version_id)
        .join(Model, Model.id == ModelVersion.model_id)
        .where(or_(Build.ready_at.is_not(None), Build.state == BUILDING))
        .order_by(Build.created_at.desc(), Build.recipe_digest.desc())
    )
    if after is not None:
        query = query.where(tuple_(Build.created_at, Build.recipe_digest) < after)
    rows = session.execute(query.limit(limit)).all()
    digests = [row[0] for row in rows]
    parts, sizes = _parts(session, digests), _sizes(session, digests)
    return [
        BuildRow(*row, parts.get(row.recipe_digest, []), sizes.get(row.recipe_digest, 0))  # type: ignore[call-arg]  # mypy loses count of a row's columns
        for row in rows
    ]


def _parts(session: Session, digests: Collection[str]) -> dict[str, list[PartRow]]:
    query = (
        select(RecipePatch.recipe_digest, full_name(Patch), PatchVersion.number, RecipePatch.scale)
        .join(PatchVersion, PatchVersion.id == RecipePatch.patch_version_id)
        .join(Patch, Patch.id == PatchVersion.patch_id)
        .where(RecipePatch.recipe_digest.in_(digests))
        .order_by(RecipePatch.recipe_digest, RecipePatch.position)
    )
    found: dict[str, list[PartRow]] = {}
    for digest, *part in session.execute(query):
        found.setdefault(digest, []).append(PartRow(*part))
    return found


def _sizes(session: Session, digests: Collection[str]) -> dict[str, int]:
    query = (
        select(BuildFile.recipe_digest, func.sum(BuildFile.overlay_size_bytes))
        .where(BuildFile.recipe_digest.in_(digests))
        .group_by(BuildFile.recipe_digest)
    )
    return {digest: int(size) for digest, size in session.execute(query)}

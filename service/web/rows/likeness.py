"""Which patches are alike, as pages list them: the nearest of one, and sets side by side."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, aliased

from service.db.tables.patches import Patch, PatchVersion
from service.db.tables.similarity import MeasuredSignature, Neighbour
from service.names import Name
from service.registry.similarity import LIVING
from service.web.rows.lines import full_name

NEAREST_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class NeighbourRow:
    """A version that a version is like, or opposed to."""

    patch: str
    number: int
    labels: list[str]
    cosine: float
    error: float
    own_share: float
    other_share: float
    clean_digest: str | None


@dataclass(frozen=True, slots=True)
class Nearest:
    """The surest neighbours of a version."""

    measured: bool
    problem: str | None
    """Why it could not be measured, if so."""
    rows: list[NeighbourRow]

    def query(self, patch: str, number: int) -> str:
        """The query of a comparison of all these with the version that they are near to."""
        names = [f"{patch}@{number}", *(f"{row.patch}@{row.number}" for row in self.rows)]
        return urlencode([("patch", name) for name in names])


def nearest(session: Session, version_id: int) -> Nearest:
    """The neighbours of a version that are most surely like it or opposed to it."""
    living = (
        select(
            Neighbour.version_id,
            Neighbour.strength,
            full_name(Patch).label("patch"),
            PatchVersion.number,
            Patch.labels,
            Neighbour.cosine,
            Neighbour.error,
            Neighbour.own_share,
            Neighbour.other_share,
            PatchVersion.clean_digest,
        )
        .join(PatchVersion, PatchVersion.id == Neighbour.neighbour_id)
        .join(Patch, Patch.id == PatchVersion.patch_id)
        .where(Neighbour.version_id == version_id, LIVING)
        .order_by(Neighbour.strength.desc(), Neighbour.neighbour_id)
        .limit(NEAREST_SHOWN)
        .subquery()
    )
    query = (
        select(MeasuredSignature.problem, *list(living.c)[2:])
        .outerjoin(living, living.c.version_id == MeasuredSignature.version_id)
        .where(MeasuredSignature.version_id == version_id)
        .order_by(living.c.strength.desc())
    )
    found = session.execute(query).all()
    return Nearest(
        measured=bool(found),
        problem=found[0].problem if found else None,
        rows=[NeighbourRow(*row[1:]) for row in found if row.patch is not None],
    )


# ── sets ─────────────────────────────────────────────────────────────────────────────────────


def named(
    session: Session, references: Sequence[tuple[Name, int | None]]
) -> Sequence[PatchVersion]:
    """The living versions of these patches and numbers, without a number the newest; by name."""
    asked = [
        (Patch.key == name.key) & (PatchVersion.number == (_newest() if n is None else n))
        for name, n in references
    ]
    return _versions(session, or_(*asked), len(asked))


def labelled(session: Session, label: str, *, limit: int) -> Sequence[PatchVersion]:
    """The newest versions of the first patches by name that bear a label."""
    bears = Patch.labels.contains([label]) & (PatchVersion.number == _newest())
    return _versions(session, bears, limit)


def _versions(session: Session, chosen: Any, limit: int) -> Sequence[PatchVersion]:
    query = (
        select(PatchVersion)
        .join(Patch, Patch.id == PatchVersion.patch_id)
        .where(chosen, PatchVersion.deleted_at.is_(None))
        .order_by(Patch.key, PatchVersion.number)
    )
    return session.scalars(query.limit(limit)).unique().all()


def _newest() -> Any:
    """The number of a patch's newest version that is not withdrawn."""
    other = aliased(PatchVersion)
    living = other.deleted_at.is_(None) & other.withdrawn_at.is_(None)
    newest = select(func.max(other.number)).where(other.patch_id == Patch.id, living)
    return newest.correlate(Patch).scalar_subquery()


def among(session: Session, versions: Collection[int]) -> dict[tuple[int, int], Neighbour]:
    """What the index knows of pairs in a set of versions, each in both directions."""
    query = select(Neighbour).where(
        Neighbour.version_id.in_(versions), Neighbour.neighbour_id.in_(versions)
    )
    found: dict[tuple[int, int], Neighbour] = {}
    for row in session.scalars(query):
        found[row.version_id, row.neighbour_id] = row
        found.setdefault((row.neighbour_id, row.version_id), row)
    return found

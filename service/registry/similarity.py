"""Which patches are alike: an index of the whole catalogue, brought up to date at every publish.

A version is published first and measured right after, by an operation of its own kind. It takes
all that is not measured yet, oldest first: what was published before there was an index, what was
missed while no worker ran. One runs at a time, so each finds what the one before has written, and
no pair is overlooked. Versions that are withdrawn or deleted take no part.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session, joinedload

from service import queue
from service.db.tables.operations import Operation
from service.db.tables.patches import Patch, PatchVersion
from service.db.tables.similarity import MeasuredSignature, Neighbour
from service.registry import operations
from service.registry.access import Principal
from service.schemas.operations import State

INDEX: Final = "index"
KEPT: Final = 50
"""How many neighbours of a version are kept."""
BATCH: Final = 64
BATCH_BYTES: Final = 256 * 2**20
"""How much one operation measures; the rest is left to the next."""

Sign = Literal["positive", "negative", "any"]
LIVING: Final = PatchVersion.deleted_at.is_(None) & PatchVersion.withdrawn_at.is_(None)
_NO_LIMIT: Final = operations.Limits(queued=sys.maxsize)  # nobody asked for it, it must not fail


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """A patch file to measure."""

    version_id: int
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Known:
    """A version of the index, with what it is compared by."""

    version_id: int
    digest: str
    size_bytes: int
    keys: bytes
    energies: bytes
    sketch: bytes
    length: float
    floor: float


def bring_up_to_date(session: Session, *, by: str, first: int | None = None) -> Operation:
    """Have what is not in the index measured, version `first` before others.

    An operation that waits still is asked for once: it is held until this transaction ends, so
    that it cannot begin before it would see what is published here.
    """
    waiting = select(Operation).where(
        Operation.queue == queue.CPU,
        Operation.state == State.QUEUED.value,
        Operation.kind == INDEX,
    )
    found = session.scalar(waiting.limit(1).with_for_update(read=True, skip_locked=True))
    if found is not None:
        return found
    return operations.request(
        session,
        INDEX,
        "measure new signatures",
        {"first": first},
        by=Principal(by, frozenset()),
        on=queue.CPU,
        limits=_NO_LIMIT,
        alone=INDEX,
    )


def unmeasured(session: Session, request: Mapping[str, Any]) -> list[Unmeasured]:
    """What an operation is to measure."""
    is_first = PatchVersion.id == (request["first"] or 0)
    query = _missing().order_by(is_first.desc(), PatchVersion.id).limit(BATCH)
    batch: list[Unmeasured] = []
    size_bytes = 0
    for row in session.execute(query):
        size_bytes += row.size_bytes
        if batch and size_bytes > BATCH_BYTES:
            break
        batch.append(Unmeasured(*row))
    return batch


def _missing() -> Any:
    measured = select(MeasuredSignature.version_id)
    query = select(PatchVersion.id, PatchVersion.digest, PatchVersion.size_bytes)
    return query.where(LIVING, PatchVersion.id.not_in(measured))


def is_complete(session: Session) -> bool:
    """Whether every version that takes part is in the index."""
    return session.execute(_missing().limit(1)).first() is None


def known(session: Session) -> list[Known]:
    """All that is in the index and takes part; some kilobytes each."""
    query = (
        select(
            PatchVersion.id,
            PatchVersion.digest,
            PatchVersion.size_bytes,
            MeasuredSignature.keys,
            MeasuredSignature.energies,
            MeasuredSignature.sketch,
            MeasuredSignature.length,
            MeasuredSignature.floor,
        )
        .join(MeasuredSignature, MeasuredSignature.version_id == PatchVersion.id)
        .where(LIVING, MeasuredSignature.problem.is_(None))
        .order_by(PatchVersion.id)
    )
    return [Known(*row) for row in session.execute(query)]


# ── what a worker found ──────────────────────────────────────────────────────────────────────


def record(
    session: Session,
    operation: Operation,
    measured: Sequence[Mapping[str, Any]],
    neighbours: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Keep rows of new signatures and neighbours, and go on where more are left to measure."""
    if measured:
        rows = insert(MeasuredSignature).values([{"floor": -1.0, **row} for row in measured])
        session.execute(rows.on_conflict_do_nothing())
    if neighbours:
        _keep(session, neighbours)
    if not is_complete(session):
        bring_up_to_date(session, by=operation.created_by)
    problems = {str(row["version_id"]): row["problem"] for row in measured if row["problem"]}
    return {"measured": len(measured), "neighbours": len(neighbours), "problems": problems}


def _keep(session: Session, neighbours: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that came from a worker, thousands at a time: one array a column."""
    columns = Neighbour.__table__.columns
    arrays = [
        literal([row[column.name] for row in neighbours], ARRAY(column.type)) for column in columns
    ]
    given = func.unnest(*arrays).table_valued(*(column.name for column in columns)).render_derived()
    row = insert(Neighbour).from_select([column.name for column in columns], select(given))
    changed = {
        column.name: row.excluded[column.name] for column in columns if not column.primary_key
    }
    keys = ["version_id", "neighbour_id"]
    session.execute(row.on_conflict_do_update(index_elements=keys, set_=changed))
    _trim(session, {each["version_id"] for each in neighbours})


def _trim(session: Session, versions: Iterable[int]) -> None:
    """Keep the nearest of each version, and note what a further one must exceed."""
    place = func.row_number().over(
        partition_by=Neighbour.version_id,
        order_by=(Neighbour.strength.desc(), Neighbour.neighbour_id),
    )
    ranked = (
        select(Neighbour.version_id, Neighbour.neighbour_id, Neighbour.strength, place.label("at"))
        .where(Neighbour.version_id.in_(set(versions)))
        .cte("ranked")
    )
    session.execute(
        update(MeasuredSignature)
        .where(MeasuredSignature.version_id == ranked.c.version_id, ranked.c.at == KEPT)
        .values(floor=ranked.c.strength)
        .execution_options(synchronize_session=False)
    )
    session.execute(
        delete(Neighbour)
        .where(
            Neighbour.version_id == ranked.c.version_id,
            Neighbour.neighbour_id == ranked.c.neighbour_id,
            ranked.c.at > KEPT,
        )
        .execution_options(synchronize_session=False)
    )


def forget(session: Session, version: PatchVersion) -> None:
    """Take a version that is retired out of all lists; who is published next may have its place."""
    gone = delete(Neighbour).where(Neighbour.neighbour_id == version.id)
    # Neighbours first, as in `record`: in the other order the two could wait for each other.
    listed_it = session.scalars(gone.returning(Neighbour.version_id)).all()
    session.execute(
        update(MeasuredSignature)
        .where(MeasuredSignature.version_id.in_(listed_it))
        .values(floor=-1.0)
        .execution_options(synchronize_session=False)
    )


# ── what anybody may ask ─────────────────────────────────────────────────────────────────────


def is_measured(session: Session, version: PatchVersion) -> bool:
    """Whether a version is in the index, be it that it could not be read."""
    query = select(MeasuredSignature.version_id)
    return session.scalar(query.where(MeasuredSignature.version_id == version.id)) is not None


def neighbours(
    session: Session,
    version: PatchVersion,
    *,
    label: str | None,
    sign: Sign,
    after: tuple[float, int] | None,
    limit: int,
) -> Sequence[tuple[Neighbour, PatchVersion]]:
    """Some neighbours of a version, the surest first, behind the one of (`strength`, id)."""
    query = (
        select(Neighbour, PatchVersion)
        .join(PatchVersion, PatchVersion.id == Neighbour.neighbour_id)
        .join(Patch, Patch.id == PatchVersion.patch_id)
        .options(joinedload(PatchVersion.patch))
        .where(Neighbour.version_id == version.id, LIVING)
        .order_by(Neighbour.strength.desc(), Neighbour.neighbour_id)
    )
    if label is not None:
        query = query.where(Patch.labels.contains([label]))
    if sign != "any":
        query = query.where(Neighbour.cosine > 0 if sign == "positive" else Neighbour.cosine < 0)
    if after is not None:
        query = query.where(_behind(*after))
    return [(row[0], row[1]) for row in session.execute(query.limit(limit))]


def _behind(strength: float, neighbour: int) -> ColumnElement[bool]:
    same = (Neighbour.strength == strength) & (Neighbour.neighbour_id > neighbour)
    return (Neighbour.strength < strength) | same

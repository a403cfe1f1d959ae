"""Collection: blobs that nothing needs are marked first and removed after.

    known ──mark──▶ marked: absent to every reader ──remove──▶ gone
      ▲                │                                         │
      └────record──────┴─────────────────record──────────────────┘     stored anew

Whoever is to refer to a blob holds its row (`blobs.sizes`), and marking skips rows that are held;
whoever stores one waits for a removal that is under way, and looks whether the bytes are there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
    Text,
    and_,
    delete,
    exists,
    func,
    not_,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service import queue
from service.db.tables.blobs import Blob
from service.db.tables.builds import EXPIRED, READY, Build, BuildFile
from service.db.tables.channels import AT_HEAD, Channel, ChannelMove
from service.db.tables.models import ModelFile, ModelVersion
from service.db.tables.operations import Operation
from service.db.tables.patches import PatchVersion
from service.db.tables.uploads import Upload
from service.names import Digest
from service.registry import operations
from service.registry.access import Principal

COLLECT: Final = "collect"
BATCH: Final = 500
EXAMPLES: Final = 20

_NAMED_IN_OPERATIONS: Final = text(
    "SELECT (regexp_matches(o.request::text || coalesce(o.result::text, ''),"
    " 'sha256:[0-9a-f]{64}', 'g'))[1] AS digest FROM operations o"
    " WHERE o.ended_at IS NULL OR o.ended_at > :since"
)
"""What open operations are to read, and what those that ended lately gave: dry runs' profiles."""


@dataclass(frozen=True, slots=True)
class Found:
    """Blobs that nothing needs."""

    count: int
    size_bytes: int
    examples: tuple[Digest, ...]


def request(
    session: Session,
    *,
    older_than_s: int,
    dry_run: bool,
    by: Principal,
    limits: operations.Limits,
) -> Operation:
    """Ask for what nothing needs to be removed; a dry run only counts it.

    Raises `NoWorker`, `QueueFull`.
    """
    operations.require_worker(session, queue.MAINTENANCE, limits)
    return operations.request(
        session,
        COLLECT,
        "blobs that nothing needs" + (": a dry run" if dry_run else ""),
        {"older_than_s": older_than_s, "dry_run": dry_run},
        by=by,
        on=queue.MAINTENANCE,
        limits=limits,
    )


def needed(since: datetime) -> CompoundSelect[Any]:
    """The digests of blobs that something needs; operations that ended after `since` count.

    A deleted version needs nothing, nor does a build whose overlays expired.
    """
    named = _NAMED_IN_OPERATIONS.bindparams(since=since).columns(digest=Text()).subquery()
    return union_all(
        _column(ModelFile.digest, ModelVersion, ModelFile.version_id == ModelVersion.id),
        _column(PatchVersion.digest, PatchVersion),
        _column(PatchVersion.profile_digest, PatchVersion),
        select(BuildFile.overlay_digest)
        .join(Build, Build.recipe_digest == BuildFile.recipe_digest)
        .where(Build.state != EXPIRED),
        select(Upload.digest).where(Upload.ended_at.is_(None)),
        select(named.c.digest),
    )


def _column(
    column: Any, table: type[ModelVersion | PatchVersion], joined: ColumnElement[bool] | None = None
) -> Select[Any]:
    query = select(column).where(table.deleted_at.is_(None), column.is_not(None))
    return query if joined is None else query.where(joined)


def _unneeded(since: datetime) -> tuple[ColumnElement[bool], ...]:
    wanted = needed(since).subquery()
    return (
        Blob.collected_at.is_(None),
        Blob.created_at < since,
        not_(exists().where(wanted.c[0] == Blob.digest)),
    )


def unneeded(session: Session, since: datetime) -> Found:
    """What a collection would take that spares what was stored after `since`."""
    where = _unneeded(since)
    count, size_bytes = session.execute(
        select(func.count(), func.coalesce(func.sum(Blob.size_bytes), 0)).where(*where)
    ).one()
    some = session.scalars(select(Blob.digest).where(*where).order_by(Blob.digest).limit(EXAMPLES))
    return Found(count, int(size_bytes), tuple(map(Digest, some)))


def mark(
    session: Session, since: datetime, *, only: Sequence[Digest] | None = None
) -> list[Digest]:
    """Mark some blobs that nothing needs and that were stored before `since`, at most `BATCH`.

    Two statements: what was referred to between the first's look and its locks is seen by the
    second.
    """
    query = select(Blob.digest).where(*_unneeded(since))
    if only is not None:
        query = query.where(Blob.digest.in_(only))
    held = session.scalars(query.limit(BATCH).with_for_update(of=Blob, skip_locked=True)).all()
    if not held:
        return []
    marked = session.scalars(
        update(Blob)
        .where(Blob.digest.in_(held), *_unneeded(since))
        .values(collected_at=func.now())
        .returning(Blob.digest)
        .execution_options(synchronize_session=False)
    )
    return [Digest(digest) for digest in marked]


def to_remove(session: Session, *, after: str = "") -> Sequence[tuple[Digest, int]]:
    """Some marked blobs whose bytes are there still, with their sizes, behind digest `after`."""
    query = select(Blob.digest, Blob.size_bytes).where(
        Blob.collected_at.is_not(None), Blob.removed_at.is_(None), Blob.digest > after
    )
    rows = session.execute(query.order_by(Blob.digest).limit(BATCH))
    return [(Digest(digest), size) for digest, size in rows]


def hold(session: Session, digest: Digest) -> bool:
    """Hold a marked blob, so that its bytes can be removed before the transaction ends.

    False where it was stored anew, or is being uploaded just now.
    """
    held = session.scalar(
        select(Blob.digest)
        .where(
            Blob.digest == digest,
            Blob.collected_at.is_not(None),
            not_(exists().where(Upload.digest == digest, Upload.ended_at.is_(None))),
        )
        .with_for_update(of=Blob)
    )
    return held is not None


def removed(session: Session, digest: Digest) -> None:
    """Record that the bytes of a held blob are gone; its row goes, unless a deleted version's."""
    referred = and_(
        not_(exists().where(ModelFile.digest == digest)),
        not_(exists().where(PatchVersion.digest == digest)),
        not_(exists().where(PatchVersion.profile_digest == digest)),
    )
    gone = session.execute(delete(Blob).where(Blob.digest == digest, referred))
    if not gone.rowcount:  # type: ignore[attr-defined]  # of a DELETE it has one
        session.execute(update(Blob).where(Blob.digest == digest).values(removed_at=func.now()))


def adopt(session: Session, found: Iterable[tuple[Digest, int]]) -> int:
    """Record blobs that the store holds whole and nobody recorded; answers how many there were.

    They are as good as uploaded just now, and are collected in their time if nothing refers to
    them: the remains of what was cut off between its storing and its recording.
    """
    rows = [{"digest": digest, "size_bytes": size} for digest, size in found]
    if not rows:
        return 0
    made = session.scalars(
        insert(Blob).values(rows).on_conflict_do_nothing().returning(Blob.digest)
    )
    return len(made.all())


# ── expiry ───────────────────────────────────────────────────────────────────────────────────


def expire(session: Session, limit_bytes: int) -> list[Digest]:
    """Expire the builds that were not used for longest, until all overlays fit in `limit_bytes`.

    What a channel points at stays. Answers the digests of overlays that may not be needed any more:
    asked for again, they are made again, byte for byte.
    """
    kept = select(ChannelMove.recipe_digest).join(Channel, AT_HEAD)
    kept = kept.where(Channel.deleted_at.is_(None))
    sizes = (
        select(
            Build.recipe_digest,
            Build.used_at,
            func.sum(BuildFile.overlay_size_bytes).label("size_bytes"),
            Build.recipe_digest.in_(kept).label("is_kept"),
        )
        .join(BuildFile, BuildFile.recipe_digest == Build.recipe_digest)
        .where(Build.state == READY)
        .group_by(Build.recipe_digest)
        .subquery()
    )
    # Summed up from what must stay, then from the newest: what lies beyond the limit goes.
    order = (sizes.c.is_kept.desc(), sizes.c.used_at.desc(), sizes.c.recipe_digest)
    running = select(
        sizes.c.recipe_digest,
        sizes.c.is_kept,
        func.sum(sizes.c.size_bytes).over(order_by=order).label("total"),
    ).subquery()
    late = select(running.c.recipe_digest).where(
        running.c.total > limit_bytes, not_(running.c.is_kept)
    )
    builds = session.scalars(
        select(Build)
        .where(Build.recipe_digest.in_(late), Build.state == READY)
        .with_for_update(of=Build, skip_locked=True)
    ).all()
    for build in builds:
        build.state = EXPIRED
    session.flush()
    return [Digest(file.overlay_digest) for build in builds for file in build.files]

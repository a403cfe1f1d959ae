"""Audits: which blobs are to be read back next, and what was found of them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from service import errors, queue
from service.db.tables.blobs import Blob
from service.db.tables.operations import Operation
from service.names import Digest
from service.registry import blobs, builds, operations
from service.registry.access import Principal

AUDIT: Final = "audit"
BATCH: Final = 100
_SERVICE: Final = Principal("patchbay", frozenset())
_UNREFUSED: Final = operations.Limits(queued=sys.maxsize)


@dataclass(frozen=True, slots=True)
class Due:
    """A blob to read back; `seen_at` by the database's clock."""

    digest: Digest
    size_bytes: int
    seen_at: datetime


def request(
    session: Session,
    *,
    digests: Sequence[Digest],
    bytes_per_s: int | None,
    by: Principal,
    limits: operations.Limits,
) -> Operation:
    """Ask for blobs to be read back against their digests; without `digests`, all of them.

    Raises `BlobNotFound`, `NoWorker`, `QueueFull`.
    """
    known = set(session.scalars(select(Blob.digest).where(Blob.digest.in_(digests))))
    for digest in digests:
        if digest not in known:
            raise errors.BlobNotFound(digest)
    operations.require_worker(session, queue.MAINTENANCE, limits)
    return operations.request(
        session,
        AUDIT,
        f"{len(digests)} blobs" if digests else "all blobs",
        {"digests": list(digests), "bytes_per_s": bytes_per_s},
        by=by,
        on=queue.MAINTENANCE,
        limits=limits,
    )


def suspect(session: Session, digest: Digest) -> None:
    """Have a blob read back that somebody found damaged: what it is, the audit says.

    A reader may be wrong, where a network turned a bit; the audit that reads the blob again marks
    it. One at a time, and none of a blob that is marked already.
    """
    if blobs.known(session, digest) is None or _is_suspected(session, digest):
        return
    operations.request(
        session,
        AUDIT,
        _one(digest),
        {"digests": [digest], "bytes_per_s": None},
        by=_SERVICE,
        on=queue.MAINTENANCE,
        limits=_UNREFUSED,
    )


def _is_suspected(session: Session, digest: Digest) -> bool:
    found = select(Operation.id).where(
        Operation.kind == AUDIT,
        Operation.subject == _one(digest),
        Operation.state.in_(operations.OPEN),
    )
    return session.scalar(found.limit(1)) is not None


def _one(digest: Digest) -> str:
    return f"blob {digest}"


def due(
    session: Session, before: datetime, *, only: Sequence[Digest] | None = None
) -> Sequence[Due]:
    """Some blobs that were not verified since `before`, those first that wait for longest.

    Damaged ones are among them, since they may be whole again; collected ones are not.
    """
    query = select(Blob.digest, Blob.size_bytes, func.now()).where(
        or_(Blob.verified_at.is_(None), Blob.verified_at < before), Blob.collected_at.is_(None)
    )
    if only is not None:
        query = query.where(Blob.digest.in_(only))
    query = query.order_by(Blob.verified_at.asc().nulls_first(), Blob.digest).limit(BATCH)
    return [Due(Digest(digest), size, now) for digest, size, now in session.execute(query)]


def size(session: Session, before: datetime, *, only: Sequence[Digest] | None = None) -> int:
    """How many bytes are due in all."""
    query = select(func.coalesce(func.sum(Blob.size_bytes), 0)).where(
        or_(Blob.verified_at.is_(None), Blob.verified_at < before), Blob.collected_at.is_(None)
    )
    if only is not None:
        query = query.where(Blob.digest.in_(only))
    return int(session.scalar(query) or 0)


def record(session: Session, due: Due, *, sound: bool) -> None:
    """Record what was found of a blob; one that was stored anew meanwhile is due still.

    Builds that a damaged one may have spoiled are let go of.
    """
    found = session.scalar(
        update(Blob)
        .where(Blob.digest == due.digest, Blob.created_at < due.seen_at)
        .values(verified_at=func.now(), damaged_at=None if sound else func.now())
        .returning(Blob.digest)
    )
    if found is not None and not sound:
        builds.distrust(session, due.digest)

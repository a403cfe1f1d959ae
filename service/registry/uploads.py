"""Uploads in parts: begun, completed, checked by a worker, and only then a blob.

    open ──complete──▶ checking ──right──▶ done
     ▲                    │ └─────wrong──▶ ended
     └──stopped, failed───┘

The store alone knows which parts have arrived. An upload belongs to who began it; begun again, it
goes on. A week after its begin it is over.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service import errors, queue
from service.blobs.staging import Staged, check_complete
from service.db.tables.operations import Operation
from service.db.tables.uploads import DONE, Upload
from service.names import Digest
from service.registry import blobs, operations
from service.registry.access import Principal
from service.schemas.operations import Scope, State
from service.schemas.uploads import UploadState

INGEST: Final = "ingest"
LIFETIME: Final = timedelta(days=7)
"""Stores sweep what is a day older: `STAGED_STALE_AFTER_S`."""
KEPT: Final = timedelta(days=7)
"""How long an upload that is over can still say so."""

_ABORTED: Final = "was aborted"
_EXPIRED: Final = "was not completed within a week"
_LOST: Final = "is not in the store any more"
_FATAL: Final[Mapping[str, str]] = {
    f"/problems/{errors.DigestMismatch.slug}": "held other bytes than its digest names",
    f"/problems/{errors.UploadEnded.slug}": _LOST,
}
"""The problems of a check that end the upload with it; after any other it can be repeated."""


def staged(upload: Upload) -> Staged:
    """An upload as its store knows it."""
    return Staged(
        upload.id, Digest(upload.digest), upload.size_bytes, upload.part_bytes, upload.token
    )


def find(session: Session, upload_id: str, *, by: Principal, lock: bool = False) -> Upload:
    """The caller's upload; raises `ThingNotFound`, also where it is somebody else's."""
    upload = session.get(Upload, upload_id, with_for_update=lock or None)
    if upload is None or not (upload.created_by == by.id or Scope.ADMIN in by.scopes):
        raise errors.ThingNotFound("upload", upload_id)
    return upload


def under_way(session: Session, digest: Digest, size_bytes: int, *, by: Principal) -> Upload | None:
    """The upload of these bytes that the caller has begun and can go on with."""
    upload = session.scalar(
        select(Upload)
        .where(
            Upload.created_by == by.id,
            Upload.digest == digest,
            Upload.size_bytes == size_bytes,
            Upload.ended_at.is_(None),
        )
        .with_for_update()
    )
    if upload is not None and (ending := _ending(session, upload)):
        _end(session, upload, ending)
        return None
    return upload


def begin(session: Session, begun: Staged, *, by: Principal) -> Upload:
    """Record an upload that its store has begun, or find the one that somebody else recorded first.

    The answer's id tells which: where it is another, what was begun is to be discarded.
    """
    values = {
        "id": begun.id,
        "digest": begun.digest,
        "size_bytes": begun.size_bytes,
        "part_bytes": begun.part_bytes,
        "token": begun.token,
        "created_by": by.id,
        "expires_at": datetime.now(UTC) + LIFETIME,
    }
    session.execute(insert(Upload).values(**values).on_conflict_do_nothing())
    found = under_way(session, begun.digest, begun.size_bytes, by=by)
    if found is None:  # it ended between the two statements
        raise errors.UploadEnded(begun.id, "was overtaken by another")
    return found


def state(session: Session, upload: Upload) -> UploadState:
    """Where an upload stands; raises `UploadEnded`."""
    if ending := _ending(session, upload):
        if ending == DONE:
            return UploadState.DONE
        raise errors.UploadEnded(upload.id, ending)
    operation = _operation(session, upload)
    if operation is not None and not State(operation.state).ended:
        return UploadState.CHECKING
    return UploadState.OPEN


def to_send_to(session: Session, upload_id: str, *, by: Principal) -> Staged:
    """The upload, if it takes parts; raises `ThingNotFound`, `UploadEnded`, `UploadSealed`."""
    upload = find(session, upload_id, by=by)
    if state(session, upload) is not UploadState.OPEN:
        raise errors.UploadSealed(upload.id)
    return staged(upload)


def complete(
    session: Session,
    upload_id: str,
    arrived: Collection[int],
    *,
    by: Principal,
    limits: operations.Limits,
) -> Operation:
    """Have a worker check the whole; completed again, it is the same operation.

    Where that one was stopped or failed for another reason than wrong bytes, there is a new one.
    Raises `ThingNotFound`, `UploadEnded`, `PartsMissing`, `QueueFull`.
    """
    upload = find(session, upload_id, by=by, lock=True)
    if state(session, upload) is not UploadState.OPEN:
        assert upload.operation_id is not None  # noqa: S101  # nothing else ends being open
        return operations.find(session, upload.operation_id)
    check_complete(staged(upload), arrived)
    operation = operations.request(
        session,
        INGEST,
        f"upload of {upload.digest}",
        {"upload": upload.id},
        by=by,
        on=queue.CPU,
        limits=limits,
    )
    upload.operation_id = operation.id
    session.flush()
    return operation


def abort(session: Session, upload_id: str, *, by: Principal) -> Staged:
    """End an upload; what the store keeps of it is to be discarded once this is committed.

    Raises `ThingNotFound`, `UploadEnded`, and `UploadSealed` while it is checked.
    """
    upload = find(session, upload_id, by=by, lock=True)
    match state(session, upload):
        case UploadState.CHECKING:
            raise errors.UploadSealed(upload.id)
        case UploadState.DONE:
            raise errors.UploadEnded(upload.id, DONE)
        case UploadState.OPEN:
            _end(session, upload, _ABORTED)
    return staged(upload)


def lose(session: Session, upload_id: str) -> None:
    """End an upload that the store knows no more."""
    upload = session.get(Upload, upload_id, with_for_update=True)
    if upload is not None and upload.ended_at is None:
        _end(session, upload, _LOST)


def expire(session: Session, *, limit: int = 100) -> Sequence[Staged]:
    """End uploads that took too long, and forget those that are over for a while.

    What the store keeps of them is to be discarded once this is committed.
    """
    now = datetime.now(UTC)
    late = session.scalars(
        select(Upload)
        .where(Upload.expires_at < now)
        .order_by(Upload.expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    ended = []
    for upload in late:
        if upload.ended_at is None and (ending := _ending(session, upload)):
            _end(session, upload, ending)
            ended.append(staged(upload))
        elif upload.ended_at is not None and upload.expires_at < now - KEPT:
            session.delete(upload)
    session.flush()
    return ended


# ── the check, as the worker sees it ─────────────────────────────────────────────────────────


def to_check(session: Session, request: Mapping[str, Any]) -> tuple[Staged, bool]:
    """What an operation is to check, and whether its blob is there already, whole.

    Raises `UploadEnded`.
    """
    upload = session.get(Upload, str(request["upload"]))
    if upload is None:
        raise errors.UploadEnded(str(request["upload"]), _EXPIRED)
    return staged(upload), blobs.known(session, Digest(upload.digest)) is not None


def record(session: Session, request: Mapping[str, Any]) -> dict[str, Any]:
    """Make a blob that a worker has hashed and stored visible; answers the operation's result."""
    upload = session.get_one(Upload, str(request["upload"]), with_for_update=True)
    blobs.record(session, Digest(upload.digest), upload.size_bytes)
    _end(session, upload, DONE)
    return {
        "digest": upload.digest,
        "size_bytes": upload.size_bytes,
        "links": {"blob": f"/v1/blobs/{upload.digest}"},
    }


# ── endings ──────────────────────────────────────────────────────────────────────────────────


def _ending(session: Session, upload: Upload) -> str | None:
    """Why an upload is over; None while it is not."""
    if upload.ended_at is not None:
        return upload.ending
    operation = _operation(session, upload)
    if operation is not None:
        if not State(operation.state).ended:
            return None
        if ending := _FATAL.get(str((operation.problem or {}).get("type"))):
            return ending
    return _EXPIRED if upload.expires_at < datetime.now(UTC) else None


def _operation(session: Session, upload: Upload) -> Operation | None:
    return session.get(Operation, upload.operation_id) if upload.operation_id else None


def _end(session: Session, upload: Upload, ending: str) -> None:
    upload.ended_at = func.now()
    upload.ending = ending
    session.flush()

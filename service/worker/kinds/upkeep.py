"""Collections and audits: long work over the store itself, which needs no device."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from sqlalchemy.orm import Session

from service import errors
from service.compute.jobs import MadeFile
from service.db.tables.operations import Operation
from service.names import Digest
from service.registry import audits, collection
from service.worker import upkeep
from service.worker.kinds.kind import Hands, Kind
from service.worker.upkeep import Removed

LOOK_EVERY_S: Final = 0.5
"""How long a slow audit may sleep before it looks whether it is to stop."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an operation over the store came to."""

    result: dict[str, Any]

    @property
    def files(self) -> tuple[MadeFile, ...]:
        """Nothing is made."""
        return ()


def _record(session: Session, operation: Operation, made: Any) -> dict[str, Any]:
    _ = session, operation  # all of it is recorded already, blob by blob
    return cast("Outcome", made).result


# ── collection ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Collect:
    """Remove what nothing needs and was stored before `since`; a dry run only counts it."""

    since: datetime
    dry_run: bool


def _prepare_collection(session: Session, operation: Operation) -> Collect:
    _ = session
    asked = operation.request
    return Collect(
        datetime.now(UTC) - timedelta(seconds=asked["older_than_s"]), bool(asked["dry_run"])
    )


def _collect(job: Any, hands: Hands) -> Outcome:
    asked = cast("Collect", job)
    hands.told(0.0, "looking for what nothing needs")
    with hands.sessions.begin() as session:
        found = collection.unneeded(session, asked.since)
    told = {"dry_run": asked.dry_run, "examples": list(found.examples)}
    if asked.dry_run:
        return Outcome({**told, "count": found.count, "size_bytes": found.size_bytes, "adopted": 0})

    def say(gone: Removed) -> None:
        hands.told(min(1.0, gone.count / max(1, found.count)), f"{gone.count} blobs removed")

    gone = upkeep.collect(hands.sessions, hands.store, asked.since, told=say)
    hands.told(1.0, "looking for what nobody recorded")
    adopted = upkeep.adopt(hands.sessions, hands.store)
    return Outcome({**told, "count": gone.count, "size_bytes": gone.size_bytes, "adopted": adopted})


COLLECTING: Final = Kind(_prepare_collection, _record, _collect)


# ── audit ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Audit:
    """Read blobs back that were not verified since `before`; None in `only`: all of them."""

    before: datetime
    only: Sequence[Digest] | None
    bytes_per_s: int | None


@dataclass
class _Pace:
    """Holds reading to a speed."""

    bytes_per_s: int | None
    done: int = 0
    began_at: float = field(default_factory=time.monotonic)

    def ahead_s(self) -> float:
        """How long to wait until so much may have been read."""
        if self.bytes_per_s is None:
            return 0.0
        return self.done / self.bytes_per_s - (time.monotonic() - self.began_at)


def _prepare_audit(session: Session, operation: Operation) -> Audit:
    _ = session
    asked = operation.request
    only = [Digest(digest) for digest in asked["digests"]] if asked["digests"] else None
    # Since its creation: an attempt that begins anew goes on where the one before ended.
    return Audit(operation.created_at, only, asked["bytes_per_s"])


def _audit(job: Any, hands: Hands) -> Outcome:
    asked = cast("Audit", job)
    pace = _Pace(asked.bytes_per_s)
    with hands.sessions.begin() as session:
        whole = audits.size(session, asked.before, only=asked.only)
    damaged: list[str] = []
    checked = 0
    while True:
        with hands.sessions.begin() as session:
            batch = audits.due(session, asked.before, only=asked.only)
        if not batch:
            break
        for due in batch:
            sound = _is_sound(due.digest, due.size_bytes, hands, pace, whole)
            with hands.sessions.begin() as session:
                audits.record(session, due, sound=sound)
            damaged += [] if sound else [due.digest]
            checked += 1
    return Outcome({"checked": checked, "size_bytes": pace.done, "damaged": damaged})


def _is_sound(digest: Digest, size_bytes: int, hands: Hands, pace: _Pace, whole: int) -> bool:
    """Whether the bytes of a blob hash to its name.

    Raises `StoreUnavailable`: what cannot be read now is not damaged.
    """
    sha256, read_bytes = hashlib.sha256(), 0
    try:
        for chunk in hands.store.stream(digest):
            sha256.update(chunk)
            read_bytes += len(chunk)
            pace.done += len(chunk)
            hands.told(min(1.0, pace.done / max(1, whole)), f"reading {digest}")
            while (ahead := pace.ahead_s()) > 0:
                time.sleep(min(ahead, LOOK_EVERY_S))
                hands.told(min(1.0, pace.done / max(1, whole)), f"reading {digest}")
    except (errors.BlobNotFound, errors.DamagedBlob):
        return False
    return read_bytes == size_bytes and digest == f"sha256:{sha256.hexdigest()}"


AUDITING: Final = Kind(_prepare_audit, _record, _audit)

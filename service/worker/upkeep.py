"""What keeps a registry in order: expiry, collection, sweeping; each step a transaction of its own.

Any number of workers may do this at once: rows are held while they are changed, others skipped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.orm import Session, sessionmaker

from service import observability
from service.blobs.store import BlobStore
from service.names import Digest
from service.registry import collection, operations, uploads

FORGET_WORKERS_AFTER: Final = timedelta(days=1)

log = observability.logger(__name__)


@dataclass(frozen=True, slots=True)
class Removed:
    """What a collection took away."""

    count: int = 0
    size_bytes: int = 0

    def __add__(self, other: "Removed") -> "Removed":
        return Removed(self.count + other.count, self.size_bytes + other.size_bytes)


def tidy(sessions: sessionmaker[Session], store: BlobStore, overlay_cache_bytes: int) -> None:
    """Let overlays beyond the limit go, end late uploads, sweep what broken ones left.

    Raises what the store and SQLAlchemy raise; whatever was done until then stays done.
    """
    with sessions.begin() as session:
        expired = collection.expire(session, overlay_cache_bytes)
    if expired:
        gone = collect(sessions, store, datetime.now(UTC), only=expired)
        log.info("overlays expired", blobs=gone.count, size_bytes=gone.size_bytes)
    with sessions.begin() as session:
        late = uploads.expire(session)
        operations.forget_workers(session, silent_for=FORGET_WORKERS_AFTER)
    for staged in late:
        store.staging.discard(staged)
    store.sweep()


def collect(
    sessions: sessionmaker[Session],
    store: BlobStore,
    since: datetime,
    *,
    only: Sequence[Digest] | None = None,
    told: Callable[[Removed], None] = lambda _: None,
) -> Removed:
    """Mark what nothing needs and was stored before `since`, and remove what is marked."""
    while True:
        with sessions.begin() as session:
            if not collection.mark(session, since, only=only):
                break
    whole, after = Removed(), ""
    while True:
        with sessions.begin() as session:
            batch = collection.to_remove(session, after=after)
        if not batch:
            return whole
        for digest, size_bytes in batch:
            after = digest
            if _removed(sessions, store, digest):
                whole += Removed(1, size_bytes)
            told(whole)


def _removed(sessions: sessionmaker[Session], store: BlobStore, digest: Digest) -> bool:
    """Remove the bytes while the row is held: cut off in between, it stays marked, so absent."""
    with sessions.begin() as session:
        if not collection.hold(session, digest):
            return False
        store.delete(digest)
        collection.removed(session, digest)
        return True


def adopt(sessions: sessionmaker[Session], store: BlobStore) -> int:
    """Record what the store holds and nobody recorded; answers how many blobs there were."""
    adopted, batch = 0, []
    for found in store.digests():
        batch.append(found)
        if len(batch) == collection.BATCH:
            adopted += _adopted(sessions, batch)
            batch = []
    return adopted + _adopted(sessions, batch)


def _adopted(sessions: sessionmaker[Session], batch: Sequence[tuple[Digest, int]]) -> int:
    with sessions.begin() as session:
        return collection.adopt(session, batch)

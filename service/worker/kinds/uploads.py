"""Uploads: parts become a blob once the whole was read back and hashes to its digest."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

from sqlalchemy.orm import Session

from service import errors
from service.blobs.staging import Staged
from service.blobs.store import BlobReader, BlobStore
from service.compute.jobs import MadeFile
from service.db.tables.operations import Operation
from service.registry import uploads
from service.worker.kinds.kind import Hands, Kind, Told

PATIENCE_S: Final = 60.0
"""How long a store that does not answer is waited for in the middle of a file."""
AGAIN_AFTER_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Ingest:
    """An upload to check; `is_known`: another has made it a blob meanwhile."""

    staged: Staged
    is_known: bool


@dataclass(frozen=True, slots=True)
class Ingested:
    """An upload that is a blob of the store now."""

    @property
    def files(self) -> tuple[MadeFile, ...]:
        """Nothing: the blob is in its place already."""
        return ()


def ingest(job: Ingest, store: BlobStore, told: Told) -> Ingested:
    """Seal an upload, hash it, and put it into its digest's place.

    Raises `PartsMissing`, `UploadEnded`, and `DigestMismatch`, after which nothing is left of it.
    """
    staged, staging = job.staged, store.staging
    if job.is_known and store.stat(staged.digest) == staged.size_bytes:
        staging.discard(staged)
        return Ingested()
    try:
        staging.seal(staged)
        with staging.open(staged) as reader:
            actual = _hashed(reader, staged.size_bytes, told)
        if actual == staged.digest:
            told(1.0, "putting it into its place")
            staging.publish(staged, lambda _: told(1.0, "putting it into its place"))
    except errors.UploadEnded:
        # An attempt that ended before it could record this has put it into its place.
        actual = _published(store, staged, told)
    if actual != staged.digest:
        staging.discard(staged)
        raise errors.DigestMismatch(staged.digest, actual)
    return Ingested()


def _published(store: BlobStore, staged: Staged, told: Told) -> str:
    if store.stat(staged.digest) != staged.size_bytes:
        raise errors.UploadEnded(staged.id, "is not in the store any more")
    with store.open(staged.digest) as reader:
        return _hashed(reader, staged.size_bytes, told)


def _hashed(reader: BlobReader, size_bytes: int, told: Told) -> str:
    sha256, done = hashlib.sha256(), 0
    for chunk in _chunks(reader, size_bytes, told):
        sha256.update(chunk)
        done += len(chunk)
        told(done / size_bytes, "reading it back")
    return "sha256:" + sha256.hexdigest()


def _chunks(reader: BlobReader, size_bytes: int, told: Told) -> Iterator[bytes]:
    """The whole, chunk by chunk; where the store goes away, it goes on as soon as it is back."""
    at, give_up_at = 0, time.monotonic() + PATIENCE_S
    while at < size_bytes:
        try:
            chunk = reader.read(at, min(at + reader.chunk_bytes, size_bytes))
        except errors.StoreUnavailable as error:
            if time.monotonic() > give_up_at:
                raise
            told(at / size_bytes, f"waiting: {error}")
            time.sleep(AGAIN_AFTER_S)
        else:
            yield chunk
            at, give_up_at = at + len(chunk), time.monotonic() + PATIENCE_S


def _prepare(session: Session, operation: Operation) -> Ingest:
    return Ingest(*uploads.to_check(session, operation.request))


def _record(session: Session, operation: Operation, made: Any) -> dict[str, Any]:
    _ = cast("Ingested", made)
    return uploads.record(session, operation.request)


def _carry(job: Any, hands: Hands) -> Ingested:
    return ingest(cast("Ingest", job), hands.store, hands.told)


INGESTION: Final = Kind(_prepare, _record, _carry)

"""Blobs that are whole and known: the bytes are stored first, the row makes them visible."""

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.blobs import Blob
from service.names import Digest


def record(session: Session, digest: Digest, size_bytes: int) -> bool:
    """Make a stored blob known; answers whether it is new."""
    query = insert(Blob).values(digest=digest, size_bytes=size_bytes).on_conflict_do_nothing()
    return session.scalar(query.returning(Blob.digest)) is not None


def find(session: Session, digest: Digest) -> Blob:
    """The blob of this digest; raises `BlobNotFound`."""
    blob = session.get(Blob, digest)
    if blob is None:
        raise errors.BlobNotFound(digest)
    return blob


def sizes(session: Session, digests: Collection[Digest]) -> dict[Digest, int]:
    """Size in bytes of each blob; raises `BlobNotFound` for the first that is not known."""
    query = select(Blob.digest, Blob.size_bytes).where(Blob.digest.in_(set(digests)))
    found = {Digest(digest): size for digest, size in session.execute(query)}
    for digest in digests:
        if digest not in found:
            raise errors.BlobNotFound(digest)
    return found

"""Blobs that are whole and known: the bytes are stored first, the row makes them visible.

A blob that was found damaged counts as absent until it is stored anew.
"""

from collections.abc import Collection

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.blobs import Blob
from service.names import Digest


def record(session: Session, digest: Digest, size_bytes: int) -> bool:
    """Make a stored blob known, and a damaged one whole again; answers whether it is new."""
    query = insert(Blob).values(digest=digest, size_bytes=size_bytes).on_conflict_do_nothing()
    if session.scalar(query.returning(Blob.digest)) is not None:
        return True
    damaged = Blob.digest == digest, Blob.damaged_at.is_not(None)
    session.execute(update(Blob).where(*damaged).values(damaged_at=None, size_bytes=size_bytes))
    return False


def known(session: Session, digest: Digest) -> Blob | None:
    """The blob of this digest; None where there is none, or a damaged one."""
    blob = session.get(Blob, digest)
    return None if blob is None or blob.damaged_at is not None else blob


def is_damaged(session: Session, digest: Digest) -> bool:
    """Whether a blob was found damaged and not stored anew since."""
    blob = session.get(Blob, digest)
    return blob is not None and blob.damaged_at is not None


def find(session: Session, digest: Digest) -> Blob:
    """The blob of this digest; raises `BlobNotFound`."""
    blob = known(session, digest)
    if blob is None:
        raise errors.BlobNotFound(digest)
    return blob


def sizes(session: Session, digests: Collection[Digest]) -> dict[Digest, int]:
    """Size in bytes of each blob; raises `BlobNotFound` for the first that is not known."""
    query = select(Blob.digest, Blob.size_bytes).where(
        Blob.digest.in_(set(digests)), Blob.damaged_at.is_(None)
    )
    found = {Digest(digest): size for digest, size in session.execute(query)}
    for digest in digests:
        if digest not in found:
            raise errors.BlobNotFound(digest)
    return found

"""Blobs that are whole and known: the bytes are stored first, the row makes them visible.

A blob that was found damaged, or that was collected, counts as absent until it is stored anew.
"""

from collections.abc import Collection, Mapping

from sqlalchemy import Boolean, ScalarSelect, func, literal_column, not_, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.blobs import Blob
from service.names import Digest

_ABSENT = or_(Blob.damaged_at.is_not(None), Blob.collected_at.is_not(None))


def record(session: Session, digest: Digest, size_bytes: int) -> bool:
    """Make a stored blob known, one that counted as absent included; answers whether it is new.

    From here to the end of the transaction it is not removed. It may have been a moment before, so
    whoever stored it looks whether it is there still, before they commit.
    """
    return bool(record_all(session, {digest: size_bytes}))


def record_all(session: Session, sizes: Mapping[Digest, int]) -> set[Digest]:
    """Make stored blobs known as `record` does, by their sizes; answers which are new."""
    if not sizes:
        return set()
    rows = [{"digest": digest, "size_bytes": sizes[digest]} for digest in sorted(sizes)]
    query = insert(Blob).values(rows)
    query = query.on_conflict_do_update(
        index_elements=[Blob.digest],
        # Its age is that of its last storing: what somebody just sent is not collected.
        set_={
            "created_at": func.now(),
            "size_bytes": query.excluded.size_bytes,
            "damaged_at": None,
            "collected_at": None,
            "removed_at": None,
        },
    )
    # In PostgreSQL a row that was not there before has no `xmax`.
    made = session.execute(query.returning(Blob.digest, literal_column("xmax = 0", Boolean)))
    return {Digest(digest) for digest, is_new in made if is_new}


def known(session: Session, digest: Digest) -> Blob | None:
    """The blob of this digest; None where there is none, or one that counts as absent."""
    return session.scalar(select(Blob).where(Blob.digest == digest, not_(_ABSENT)))


def is_damaged(session: Session, digest: Digest) -> bool:
    """Whether a blob was found damaged and not stored anew since."""
    return session.scalar(select(damaged([digest]))) is not None


def require_sound(session: Session, digests: Collection[Digest]) -> None:
    """Raise `DamagedBlob` where one of the blobs was found damaged: it must not be handed on."""
    found = session.scalar(select(damaged(digests)))
    if found is not None:
        raise errors.DamagedBlob(found)


def damaged(digests: Collection[Digest]) -> ScalarSelect[str]:
    """In a query: the first of these blobs that was found damaged, or NULL."""
    query = select(Blob.digest).where(Blob.digest.in_(set(digests)), Blob.damaged_at.is_not(None))
    return query.order_by(Blob.digest).limit(1).scalar_subquery()


def find(session: Session, digest: Digest) -> Blob:
    """The blob of this digest; raises `BlobNotFound`."""
    blob = known(session, digest)
    if blob is None:
        raise errors.BlobNotFound(digest)
    return blob


def sizes(session: Session, digests: Collection[Digest]) -> dict[Digest, int]:
    """Size in bytes of each blob; raises `BlobNotFound` for the first that is not known."""
    query = select(Blob.digest, Blob.size_bytes)
    query = query.where(Blob.digest.in_(set(digests)), not_(_ABSENT))
    # Held until the transaction ends: what is to be referred to is not collected meanwhile.
    query = query.with_for_update(read=True, key_share=True)
    found = {Digest(digest): size for digest, size in session.execute(query)}
    for digest in digests:
        if digest not in found:
            raise errors.BlobNotFound(digest)
    return found

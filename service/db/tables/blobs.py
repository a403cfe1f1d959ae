"""Blobs that are known to be whole: the bytes are in the store before the row is here."""

from datetime import datetime

from sqlalchemy import BigInteger, Index, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from service.db.declarative import Now, Table


class Blob(Table):
    """Immutable bytes, named by their sha256."""

    __tablename__ = "blobs"
    __table_args__ = (
        Index("ix_blobs_verified_at", text("verified_at NULLS FIRST"), "digest"),
        Index(
            "ix_blobs_to_remove",
            "digest",
            postgresql_where=text("collected_at is not null and removed_at is null"),
        ),
    )

    digest: Mapped[str] = mapped_column(primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[Now]
    damaged_at: Mapped[datetime | None]
    """When its bytes were found to be others than its digest names; such a blob counts as absent,
    until it is stored anew."""
    verified_at: Mapped[datetime | None]
    """When its bytes were last read back and found right."""
    collected_at: Mapped[datetime | None]
    """When it was found that nothing needs it; from then on it counts as absent, too."""
    removed_at: Mapped[datetime | None]
    """When its bytes were removed after that."""


class WeightHeader(Table):
    """The safetensors header of a weight blob, byte for byte; parsed once, at publication."""

    __tablename__ = "weight_headers"

    digest: Mapped[str] = mapped_column(primary_key=True)
    size_bytes: Mapped[int]
    raw: Mapped[bytes] = mapped_column(LargeBinary)

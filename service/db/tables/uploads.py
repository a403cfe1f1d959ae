"""Uploads in parts that are under way, or were."""

from datetime import datetime
from typing import Final

from sqlalchemy import BigInteger, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from service.db.declarative import Now, Table

DONE: Final = "was published"
"""The ending of an upload that went well; every other one is a reason to begin another."""


class Upload(Table):
    """An upload in parts; the parts themselves are known to the store alone."""

    __tablename__ = "uploads"
    __table_args__ = (
        # Whoever asks again goes on with the upload that they have.
        Index(
            "uq_uploads_open",
            "created_by",
            "digest",
            "size_bytes",
            unique=True,
            postgresql_where=text("ended_at is null"),
        ),
        Index("ix_uploads_expires_at", "expires_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]
    """Of the blob to be; no foreign key, since there is none yet."""
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    part_bytes: Mapped[int] = mapped_column(BigInteger)
    token: Mapped[str]
    """The store's own name of it."""
    operation_id: Mapped[str | None]
    """Of the operation that checks the whole, once it was declared complete."""
    created_by: Mapped[str]
    created_at: Mapped[Now]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    ending: Mapped[str | None]
    """`was published`, or why another is to be begun."""

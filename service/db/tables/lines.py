"""The columns that models and patches share, and those of their versions."""

from datetime import datetime

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from service.db.declarative import Key, Now


class LineColumns:
    """A named line of versions."""

    id: Mapped[Key]
    namespace: Mapped[str]
    name: Mapped[str]
    key: Mapped[str] = mapped_column(unique=True)
    """Lower-case `namespace/name`: unique without regard to case."""
    card: Mapped[str]
    license: Mapped[str | None]
    labels: Mapped[list[str]] = mapped_column(ARRAY(Text))
    revision: Mapped[int] = mapped_column(default=1)
    """Counts edits of the row; its ETag."""
    head: Mapped[int] = mapped_column(default=0)
    """The highest version number ever given; numbers are never reused."""
    created_by: Mapped[str]
    created_at: Mapped[Now]
    updated_at: Mapped[Now]
    deleted_at: Mapped[datetime | None]

    @property
    def full_name(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


class VersionColumns:
    """An immutable published state of a line."""

    id: Mapped[Key]
    number: Mapped[int]
    created_by: Mapped[str]
    created_at: Mapped[Now]
    withdrawn_at: Mapped[datetime | None]
    withdrawn_reason: Mapped[str | None]
    deleted_at: Mapped[datetime | None]

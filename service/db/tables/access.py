"""Tokens, hashed at rest."""

from datetime import datetime

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from service.db.declarative import Key, Now, Table


class Token(Table):
    """A bearer token; the text itself is shown once and never stored."""

    __tablename__ = "tokens"

    id: Mapped[Key]
    name: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    namespace_pattern: Mapped[str | None]
    """Glob of the namespaces it may write to; None: all."""
    created_by: Mapped[str]
    created_at: Mapped[Now]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]

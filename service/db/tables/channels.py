"""Channels: mutable names of recipes, and every move they made."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import ForeignKey
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from service.db.declarative import Key, Now, Table
from service.db.tables.recipes import Recipe


class Channel(Table):
    """A mutable name that points at a recipe."""

    __tablename__ = "channels"

    id: Mapped[Key]
    namespace: Mapped[str]
    name: Mapped[str]
    key: Mapped[str] = mapped_column(unique=True)
    head: Mapped[int]
    """Number of the last move; the channel's ETag."""
    created_by: Mapped[str]
    created_at: Mapped[Now]
    deleted_at: Mapped[datetime | None]

    @property
    def full_name(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


class ChannelMove(Table):
    """One entry of a channel's history."""

    __tablename__ = "channel_moves"

    channel_id: Mapped[int] = mapped_column(ForeignKey("channels.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    action: Mapped[str]
    """`point`, `add`, `rescale`, `drop` or `revert`."""
    recipe_digest: Mapped[str] = mapped_column(ForeignKey("recipes.digest"), index=True)
    base_reference: Mapped[str]
    entered: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    """The patches as entered, zeros included: {patch, version, scale}."""
    reverted_to: Mapped[int | None]
    moved_by: Mapped[str]
    moved_at: Mapped[Now]

    recipe: Mapped[Recipe] = relationship(lazy="joined", innerjoin=True)


AT_HEAD: Final = (ChannelMove.channel_id == Channel.id) & (ChannelMove.number == Channel.head)
"""Joins a channel with its last move."""

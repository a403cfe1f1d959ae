"""Builds: carried-out recipes and their overlays."""

from datetime import datetime

from sqlalchemy import ForeignKey, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column, relationship

from service.db.declarative import Now, Table
from service.db.tables.recipes import Recipe


class Build(Table):
    """A recipe that is being, or has been, carried out."""

    __tablename__ = "builds"

    recipe_digest: Mapped[str] = mapped_column(ForeignKey("recipes.digest"), primary_key=True)
    state: Mapped[str]
    """`building`, `ready`, or `expired`: its overlays were removed and can be made again."""
    operation_id: Mapped[str | None]
    created_by: Mapped[str]
    created_at: Mapped[Now]
    ready_at: Mapped[datetime | None]
    used_at: Mapped[Now]

    recipe: Mapped[Recipe] = relationship(lazy="joined", innerjoin=True)
    files: Mapped[list["BuildFile"]] = relationship(
        order_by="BuildFile.path", lazy="selectin", cascade="all, delete-orphan"
    )


class BuildFile(Table):
    """The overlay of one weight file; recorded once, whatever becomes of the blob."""

    __tablename__ = "build_files"

    recipe_digest: Mapped[str] = mapped_column(ForeignKey("builds.recipe_digest"), primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    overlay_digest: Mapped[str] = mapped_column(index=True)
    overlay_size_bytes: Mapped[int]
    overlay_header: Mapped[bytes] = mapped_column(LargeBinary)

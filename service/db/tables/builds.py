"""Builds: carried-out recipes and their overlays."""

from datetime import datetime
from typing import Final

from sqlalchemy import ForeignKey, Index, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column, relationship

from service.db.declarative import Now, Table
from service.db.tables.recipes import Recipe

BUILDING: Final = "building"
READY: Final = "ready"
EXPIRED: Final = "expired"


class Build(Table):
    """A recipe that is being, or has been, carried out."""

    __tablename__ = "builds"
    __table_args__ = (Index("ix_builds_created_at_recipe_digest", "created_at", "recipe_digest"),)

    recipe_digest: Mapped[str] = mapped_column(ForeignKey("recipes.digest"), primary_key=True)
    state: Mapped[str]
    """`building` while its operation is open, `ready`, or `expired`: there are no overlays, be it
    that they were removed or that (without `ready_at`) none was ever made."""
    operation_id: Mapped[str | None]
    digest_operation_id: Mapped[str | None]
    """Of the operation that hashes the patched files."""
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
    overlay_header: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    """Read only for the file that is sent: a list of builds would carry all of them."""
    file_digest: Mapped[str | None] = mapped_column(index=True)
    """sha256 of the whole patched file, which is in no blob; None until it is computed."""

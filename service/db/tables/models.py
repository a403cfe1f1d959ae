"""Base models, their versions and files, and their aliases."""

from typing import Any

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from service.db.declarative import Key, Now, Table
from service.db.tables.lines import LineColumns, VersionColumns


class Model(LineColumns, Table):
    """A named line of base weights."""

    __tablename__ = "models"


class ModelVersion(VersionColumns, Table):
    """An immutable published state of a model."""

    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("model_id", "number"),)

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    weights_digest: Mapped[str] = mapped_column(index=True)
    """The version digest: over the weight files alone."""
    files_digest: Mapped[str]
    """Over all files: publishing the same files again finds this version."""
    size_bytes: Mapped[int]
    architecture_id: Mapped[int | None] = mapped_column(ForeignKey("architectures.id"), index=True)
    """What it offers to patches; None where it was published before that was kept."""
    forward_order: Mapped[list[list[str]] | None] = mapped_column(
        JSONB(none_as_null=True), deferred=True
    )
    """[path, name] of the tensors as data passes them, where that is known."""
    conversion: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """What it was converted from, if it was: checkpoints, tied names, what was left out."""
    source_digest: Mapped[str | None]
    """Over the files that it was converted from: publishing them again finds this version."""

    model: Mapped[Model] = relationship(lazy="joined", innerjoin=True)
    files: Mapped[list["ModelFile"]] = relationship(
        order_by="ModelFile.path", lazy="selectin", cascade="all, delete-orphan"
    )

    @property
    def reference(self) -> str:
        """`namespace/name@number`."""
        return f"{self.model.full_name}@{self.number}"

    @property
    def weight_files(self) -> list["ModelFile"]:
        """The files that hold tensors, by path."""
        return [file for file in self.files if file.is_weights]


class ModelFile(Table):
    """One file of a version."""

    __tablename__ = "model_files"

    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(ForeignKey("blobs.digest"), index=True)
    size_bytes: Mapped[int]
    is_weights: Mapped[bool]


class Alias(Table):
    """A mutable name of a version."""

    __tablename__ = "aliases"
    __table_args__ = (Index("uq_aliases_model_id_key", "model_id", "key", unique=True),)

    id: Mapped[Key]
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    name: Mapped[str]
    key: Mapped[str]
    version_number: Mapped[int]
    head: Mapped[int]
    """Number of the last move; the alias's ETag."""
    follows: Mapped[bool]
    """`main` follows the newest version until someone moves it."""


class AliasMove(Table):
    """One entry of an alias's history."""

    __tablename__ = "alias_moves"

    alias_id: Mapped[int] = mapped_column(ForeignKey("aliases.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    version_number: Mapped[int]
    moved_by: Mapped[str]
    moved_at: Mapped[Now]

"""Patches, their versions, and what the signature of a patch file holds."""

from typing import Any

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from service.db.declarative import Table
from service.db.tables.lines import LineColumns, VersionColumns
from service.db.tables.models import ModelVersion


class Patch(LineColumns, Table):
    """A named line of signatures."""

    __tablename__ = "patches"


class PatchVersion(VersionColumns, Table):
    """An immutable published state of a patch."""

    __tablename__ = "patch_versions"
    __table_args__ = (UniqueConstraint("patch_id", "number"),)

    patch_id: Mapped[int] = mapped_column(ForeignKey("patches.id"))
    digest: Mapped[str] = mapped_column(ForeignKey("blobs.digest"), index=True)
    size_bytes: Mapped[int]
    profile_digest: Mapped[str | None] = mapped_column(ForeignKey("blobs.digest"))
    clean_version_id: Mapped[int | None] = mapped_column(
        ForeignKey("model_versions.id"), index=True
    )
    robust_version_id: Mapped[int | None] = mapped_column(
        ForeignKey("model_versions.id"), index=True
    )
    origin_version_id: Mapped[int | None] = mapped_column(
        ForeignKey("model_versions.id"), index=True
    )
    clean_digest: Mapped[str | None] = mapped_column(index=True)
    """Version digest of the clean model, as the patch file names it."""
    summary: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """What lists and pages show: quality, selection, sizes, energy kept, gain, warnings."""
    tensors: Mapped[list[list[Any]]] = mapped_column(JSONB, deferred=True)
    """What the patch needs of a base: [path, name, shape, kind] each. Up to megabytes, and read
    only where a recipe is made for the first time."""
    operation_id: Mapped[str | None]
    requirement_id: Mapped[int | None] = mapped_column(ForeignKey("requirements.id"), index=True)
    """What it needs of a base; None where it was published before that was kept."""

    patch: Mapped[Patch] = relationship(lazy="joined", innerjoin=True)
    clean: Mapped[ModelVersion | None] = relationship(foreign_keys=[clean_version_id])
    robust: Mapped[ModelVersion | None] = relationship(foreign_keys=[robust_version_id])
    origin: Mapped[ModelVersion | None] = relationship(foreign_keys=[origin_version_id])

    @property
    def reference(self) -> str:
        """`namespace/name@number`."""
        return f"{self.patch.full_name}@{self.number}"

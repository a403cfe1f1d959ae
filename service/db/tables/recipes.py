"""Recipes: a base version and the patches on it, by digest."""

from decimal import Decimal
from typing import Any

from sqlalchemy import ForeignKey, Numeric
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from service.db.declarative import Now, Table
from service.db.tables.models import ModelVersion
from service.db.tables.patches import PatchVersion


class Recipe(Table):
    """A canonical recipe, named by its digest."""

    __tablename__ = "recipes"

    digest: Mapped[str] = mapped_column(primary_key=True)
    base_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), index=True)
    """The version it was first made on; another version may hold the same weights."""
    canonical: Mapped[dict[str, Any]] = mapped_column(JSONB)
    overlay_bytes: Mapped[int]
    """How many bytes of the base's tensors its patches touch."""
    created_by: Mapped[str]
    created_at: Mapped[Now]

    base: Mapped[ModelVersion] = relationship(lazy="joined", innerjoin=True)
    patches: Mapped[list["RecipePatch"]] = relationship(
        order_by="RecipePatch.position", lazy="selectin", cascade="all, delete-orphan"
    )


class RecipePatch(Table):
    """One patch of a recipe, in canonical order."""

    __tablename__ = "recipe_patches"

    recipe_digest: Mapped[str] = mapped_column(ForeignKey("recipes.digest"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    patch_version_id: Mapped[int] = mapped_column(ForeignKey("patch_versions.id"), index=True)
    scale: Mapped[Decimal] = mapped_column(Numeric(6, 4))

    version: Mapped[PatchVersion] = relationship(lazy="joined", innerjoin=True)

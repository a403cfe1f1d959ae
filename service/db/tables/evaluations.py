"""Evaluation results: how accurate a base is under a patch, as somebody measured it."""

from decimal import Decimal
from typing import Final

from sqlalchemy import ForeignKey, Index, Numeric
from sqlalchemy.orm import Mapped, mapped_column, relationship

from service.db.declarative import Key, Now, Table
from service.db.tables.models import ModelVersion
from service.db.tables.patches import PatchVersion

CONDITION: Final = (
    *("patch_version_id", "base_version_id", "data_set", "corruption", "severity", "scale"),
    "seed",
)
"""What was measured under; one result each."""


class Evaluation(Table):
    """One result: the accuracy of a base with a patch at a scale on some images."""

    __tablename__ = "evaluations"
    __table_args__ = (
        Index(
            "uq_evaluations_condition", *CONDITION, unique=True, postgresql_nulls_not_distinct=True
        ),
        Index("ix_evaluations_data_set_corruption_id", "data_set", "corruption", "id"),
    )

    id: Mapped[Key]
    patch_version_id: Mapped[int] = mapped_column(ForeignKey("patch_versions.id"))
    base_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), index=True)
    data_set: Mapped[str]
    corruption: Mapped[str]
    """`clean` for images as they are."""
    severity: Mapped[Decimal | None] = mapped_column(Numeric(6, 3))
    scale: Mapped[Decimal] = mapped_column(Numeric(6, 4))
    """Of the patch; 0 is the base itself."""
    accuracy: Mapped[float]
    """Share of the images that were classified rightly."""
    n: Mapped[int]
    """How many images."""
    seed: Mapped[int | None]
    created_by: Mapped[str]
    created_at: Mapped[Now]

    patch_version: Mapped[PatchVersion] = relationship(lazy="joined", innerjoin=True)
    base: Mapped[ModelVersion] = relationship(lazy="joined", innerjoin=True)

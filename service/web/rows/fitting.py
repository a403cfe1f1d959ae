"""Which patches fit a model version, and which model versions a patch fits, newest first.

The registry's `fits` answers the same, with whole rows.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.tables.fits import Fit
from service.db.tables.models import Model, ModelVersion
from service.db.tables.patches import Patch, PatchVersion
from service.registry.similarity import LIVING
from service.web.rows.lines import full_name, reference

SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class FittingPatch:
    """A patch version that fits; `same_base`: it was extracted on these very weights."""

    patch: str
    number: int
    labels: list[str]
    size_bytes: int
    same_base: bool | None


@dataclass(frozen=True, slots=True)
class FittingBase:
    """A model version that a patch fits; `same_base`: it was extracted on these very weights."""

    reference: str
    size_bytes: int
    same_base: bool | None


def patches(session: Session, base: ModelVersion) -> list[FittingPatch]:
    """The newest patch versions that fit a base, one more than are shown."""
    met = select(Fit.requirement_id).where(Fit.architecture_id == base.architecture_id)
    query = (
        select(
            full_name(Patch),
            PatchVersion.number,
            Patch.labels,
            PatchVersion.size_bytes,
            PatchVersion.clean_digest == base.weights_digest,
        )
        .join(Patch, Patch.id == PatchVersion.patch_id)
        .where(PatchVersion.requirement_id.in_(met), LIVING)
        .order_by(PatchVersion.id.desc())
        .limit(SHOWN + 1)
    )
    return [FittingPatch(*row) for row in session.execute(query)]


def bases(
    session: Session, requirement_id: int | None, clean_digest: str | None
) -> list[FittingBase]:
    """The newest model versions that meet a patch's requirement, one more than are shown."""
    met = select(Fit.architecture_id).where(Fit.requirement_id == requirement_id)
    query = (
        select(
            reference(ModelVersion, Model),
            ModelVersion.size_bytes,
            ModelVersion.weights_digest == clean_digest,
        )
        .join(Model, Model.id == ModelVersion.model_id)
        .where(
            ModelVersion.architecture_id.in_(met),
            ModelVersion.deleted_at.is_(None),
            ModelVersion.withdrawn_at.is_(None),
        )
        .order_by(ModelVersion.id.desc())
        .limit(SHOWN + 1)
    )
    return [FittingBase(*row) for row in session.execute(query)]

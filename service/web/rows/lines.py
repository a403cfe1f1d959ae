"""Models and patches as the catalogue lists them, each with its newest version."""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Select, Text, cast, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from service.db.tables.models import Model, ModelVersion
from service.db.tables.patches import Patch, PatchVersion
from service.names import Name
from service.registry import lines


@dataclass(frozen=True, slots=True)
class Search:
    """What a list should hold: words and a label, behind the line of key `after`."""

    words: str = ""
    label: str | None = None
    base: Name | None = None
    """Patches: only those extracted on this model."""
    after: str | None = None
    limit: int = 101


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model; what speaks of its newest version is None before the first."""

    key: str
    name: str
    labels: list[str]
    license: str | None
    number: int | None
    size_bytes: int | None
    published_at: datetime | None


@dataclass(frozen=True, slots=True)
class PatchRow:
    """A patch; its newest version is the newest that is not withdrawn."""

    key: str
    name: str
    labels: list[str]
    license: str | None
    number: int | None
    size_bytes: int | None
    published_at: datetime | None
    base_bytes: float | None
    energy_kept: float | None
    clean: str | None
    """Reference of the model that it was extracted on, where it is known here."""

    @property
    def of_base(self) -> float | None:
        """Its size as a share of the model's."""
        if not self.size_bytes or not self.base_bytes:
            return None
        return self.size_bytes / self.base_bytes


def full_name(table: type[Model | Patch]) -> Any:
    """`namespace/name`, in SQL."""
    return table.namespace + "/" + table.name


def reference(version: Any, model: Any) -> Any:
    """`namespace/name@number`, in SQL; null where there is no version."""
    return model.namespace + "/" + model.name + "@" + cast(version.number, Text)


def models(session: Session, search: Search) -> list[ModelRow]:
    """Some models by key."""
    query = lines.matching(_models(), Model, words=search.words, label=search.label)
    return [ModelRow(*row) for row in session.execute(_part(query, Model.key, search))]


def patches(session: Session, search: Search) -> list[PatchRow]:
    """Some patches by key."""
    query = lines.matching(_patches(), Patch, words=search.words, label=search.label)
    if search.base is not None:
        query = query.where(Patch.id.in_(_extracted_on(search.base)))
    return [PatchRow(*row) for row in session.execute(_part(query, Patch.key, search))]


# A lateral join reads one index entry a line, however many versions a line has. Kept, since putting
# such a query together takes as long as carrying it out.


@cache
def _models() -> Select[Any]:
    newest = (
        select(ModelVersion.number, ModelVersion.size_bytes, ModelVersion.created_at)
        .where(ModelVersion.model_id == Model.id, ModelVersion.deleted_at.is_(None))
        .order_by(ModelVersion.number.desc())
        .limit(1)
        .lateral("newest")
    )
    return (
        select(Model.key, full_name(Model), Model.labels, Model.license, *newest.c)
        .select_from(Model)
        .outerjoin(newest, true())
    )


@cache
def _patches() -> Select[Any]:
    clean, model = aliased(ModelVersion), aliased(Model)
    newest = (
        select(
            PatchVersion.number,
            PatchVersion.size_bytes,
            PatchVersion.created_at,
            PatchVersion.summary["base_bytes"].as_float().label("base_bytes"),
            PatchVersion.summary["energy_kept"].as_float().label("energy_kept"),
            PatchVersion.clean_version_id,
        )
        .where(
            PatchVersion.patch_id == Patch.id,
            PatchVersion.deleted_at.is_(None),
            PatchVersion.withdrawn_at.is_(None),
        )
        .order_by(PatchVersion.number.desc())
        .limit(1)
        .lateral("newest")
    )
    shown = [column for column in newest.c if column.name != "clean_version_id"]
    return (
        select(
            Patch.key,
            full_name(Patch),
            Patch.labels,
            Patch.license,
            *shown,
            reference(clean, model),
        )
        .select_from(Patch)
        .outerjoin(newest, true())
        .outerjoin(clean, clean.id == newest.c.clean_version_id)
        .outerjoin(model, model.id == clean.model_id)
    )


def _extracted_on(base: Name) -> Any:
    return (
        select(PatchVersion.patch_id)
        .join(ModelVersion, ModelVersion.id == PatchVersion.clean_version_id)
        .join(Model, Model.id == ModelVersion.model_id)
        .where(Model.key == base.key, PatchVersion.deleted_at.is_(None))
    )


def _part(query: Any, key: InstrumentedAttribute[str], search: Search) -> Any:
    if search.after is not None:
        query = query.where(key > search.after)
    return query.order_by(key).limit(search.limit)

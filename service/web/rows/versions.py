"""Versions of a model or a patch, and what leads from one to the other."""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import Select, func, literal, select, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from service import errors
from service.db.tables.blobs import Blob
from service.db.tables.models import Model, ModelFile, ModelVersion
from service.db.tables.patches import Patch, PatchVersion
from service.db.tables.recipes import Recipe
from service.names import Digest
from service.web.rows.lines import full_name, reference

USES_SHOWN: Final = 50


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version in the list of its line's."""

    number: int
    size_bytes: int
    created_by: str
    created_at: datetime
    withdrawn_at: datetime | None
    withdrawn_reason: str | None
    digest: str
    """Of a patch file; of a model's weights."""


@dataclass(frozen=True, slots=True)
class PatchVersionShown:
    """The version that a patch's page is about, with references to the models behind it."""

    id: int
    number: int
    digest: str
    size_bytes: int
    profile_digest: str | None
    profile_bytes: int | None
    summary: dict[str, Any]
    operation_id: str | None
    created_by: str
    created_at: datetime
    withdrawn_at: datetime | None
    withdrawn_reason: str | None
    deleted_at: datetime | None
    clean_digest: str | None
    requirement_id: int | None
    clean_paths: list[str]
    """The weight files of the clean model; none where it is not known here."""
    clean: str | None
    robust: str | None
    origin: str | None


@dataclass(frozen=True, slots=True)
class Use:
    """A patch that was extracted from some version of a model."""

    role: str
    """`clean`, `robust` or `origin`."""
    patch: str
    number: int


def of_model(session: Session, model: Model, *, before: int | None, limit: int) -> list[VersionRow]:
    """Some living versions, newest first."""
    return _listed(
        session, ModelVersion, ModelVersion.weights_digest, model.id, before=before, limit=limit
    )


def of_patch(session: Session, patch: Patch, *, before: int | None, limit: int) -> list[VersionRow]:
    """Some living versions, newest first."""
    return _listed(session, PatchVersion, PatchVersion.digest, patch.id, before=before, limit=limit)


def _listed(
    session: Session,
    table: type[ModelVersion | PatchVersion],
    digest: InstrumentedAttribute[str],
    line_id: int,
    *,
    before: int | None,
    limit: int,
) -> list[VersionRow]:
    owner = table.model_id if issubclass(table, ModelVersion) else table.patch_id
    query = select(
        table.number,
        table.size_bytes,
        table.created_by,
        table.created_at,
        table.withdrawn_at,
        table.withdrawn_reason,
        digest,
    ).where(owner == line_id, table.deleted_at.is_(None))
    if before is not None:
        query = query.where(table.number < before)
    rows = session.execute(query.order_by(table.number.desc()).limit(limit))
    return [VersionRow(*row) for row in rows]


def shown(session: Session, patch: Patch, number: int | None) -> PatchVersionShown | None:
    """The version of this number, else the newest not withdrawn, else the newest; None: none.

    Raises `ThingNotFound` and `ThingDeleted` for a number.
    """
    query = _with_lineage().where(PatchVersion.patch_id == patch.id).limit(1)
    if number is None:
        newest = PatchVersion.withdrawn_at.is_not(None), PatchVersion.number.desc()
        query = query.where(PatchVersion.deleted_at.is_(None)).order_by(*newest)
    else:
        query = query.where(PatchVersion.number == number)
    row = session.execute(query).one_or_none()
    if row is None and number is not None:
        raise errors.ThingNotFound("patch version", f"{patch.full_name}@{number}")
    if row is None:
        return None
    found = PatchVersionShown(*row)
    if found.deleted_at is not None:
        raise errors.ThingDeleted("patch version", f"{patch.full_name}@{number}")
    return found


@cache
def _with_lineage() -> Select[Any]:
    """The columns of `PatchVersionShown`, with the models behind a version joined in."""
    models = [(aliased(ModelVersion), aliased(Model)) for _ in range(3)]
    query = select(
        PatchVersion.id,
        PatchVersion.number,
        PatchVersion.digest,
        PatchVersion.size_bytes,
        PatchVersion.profile_digest,
        Blob.size_bytes,
        PatchVersion.summary,
        PatchVersion.operation_id,
        PatchVersion.created_by,
        PatchVersion.created_at,
        PatchVersion.withdrawn_at,
        PatchVersion.withdrawn_reason,
        PatchVersion.deleted_at,
        PatchVersion.clean_digest,
        PatchVersion.requirement_id,
        func.array(_weight_paths(PatchVersion.clean_version_id).scalar_subquery()),
        *(reference(version, model) for version, model in models),
    ).outerjoin(Blob, Blob.digest == PatchVersion.profile_digest)
    roles = (
        PatchVersion.clean_version_id,
        PatchVersion.robust_version_id,
        PatchVersion.origin_version_id,
    )
    for role, (version, model) in zip(roles, models, strict=True):
        query = query.outerjoin(version, version.id == role)
        query = query.outerjoin(model, model.id == version.model_id)
    return query


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a model version beside its files."""

    ordered: int | None
    """Of how many tensors the forward order was recorded; None: it was not."""
    is_recipe: bool
    """Whether the version alone was recorded as a recipe, so that its commit finds it."""


def known(session: Session, version_id: int, recipe: Digest) -> Known:
    """What is known of a version whose own recipe has this digest."""
    recorded = select(Recipe.digest).where(Recipe.digest == recipe).exists()
    query = select(func.jsonb_array_length(ModelVersion.forward_order), recorded)
    return Known(*session.execute(query.where(ModelVersion.id == version_id)).one())


def uses(session: Session, model: Model) -> list[Use]:
    """The patches that were extracted from any version of a model, and what it was to them."""
    own = select(ModelVersion.id).where(ModelVersion.model_id == model.id)
    roles = {
        "clean": PatchVersion.clean_version_id,
        "robust": PatchVersion.robust_version_id,
        "origin": PatchVersion.origin_version_id,
    }
    parts = [
        select(
            literal(role).label("role"),
            full_name(Patch).label("patch"),
            func.max(PatchVersion.number),
        )
        .join(Patch, Patch.id == PatchVersion.patch_id)
        .where(column.in_(own), PatchVersion.deleted_at.is_(None), Patch.deleted_at.is_(None))
        .group_by(Patch.namespace, Patch.name)
        for role, column in roles.items()
    ]
    query = union_all(*parts).order_by("role", "patch").limit(USES_SHOWN)
    return [Use(*row) for row in session.execute(query)]


def weight_paths(session: Session, version_id: int | None) -> list[str]:
    """The paths of a model version's weight files; none where the version is not known."""
    return list(session.scalars(_weight_paths(version_id)))


def _weight_paths(version_id: Any) -> Select[str]:
    of_version = ModelFile.version_id == version_id, ModelFile.is_weights.is_(True)
    return select(ModelFile.path).where(*of_version).order_by(ModelFile.path)

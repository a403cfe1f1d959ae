"""Withdraw and delete: a withdrawn version is no longer chosen, a deleted one is gone for good.

A deletion writes a tombstone and is refused while something points at the version: the number is
never used again, and the blobs stay until they are collected.
"""

from typing import Final

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.builds import EXPIRED, Build
from service.db.tables.models import Alias, Model, ModelVersion
from service.db.tables.patches import Patch, PatchVersion
from service.db.tables.recipes import Recipe, RecipePatch
from service.names import Name
from service.registry import aliases, channels, lines, similarity
from service.registry.access import Principal

SHOWN: Final = 10


def withdraw(session: Session, version: ModelVersion | PatchVersion, reason: str) -> None:
    """Take a version out of choice; whoever pinned it still gets it."""
    if version.withdrawn_at is None:
        version.withdrawn_at = func.now()
    version.withdrawn_reason = reason
    if isinstance(version, PatchVersion):
        similarity.forget(session, version)
    session.flush()
    session.refresh(version)


def delete_model_version(session: Session, version: ModelVersion, *, by: Principal) -> None:
    """Write a model version's tombstone; raises `StillNeeded` naming who needs it."""
    lines.find(session, Model, _name(version.model), lock=True)
    _wait_for_users(session, ModelVersion, version.id)
    _check_unneeded(session, "version", version.reference, Recipe.base_version_id == version.id)
    _leave_aliases(session, version, by)
    version.deleted_at = func.now()
    session.flush()


def delete_patch_version(session: Session, version: PatchVersion) -> None:
    """Write a patch version's tombstone; raises `StillNeeded` naming who needs it."""
    lines.find(session, Patch, _name(version.patch), lock=True)
    _wait_for_users(session, PatchVersion, version.id)
    uses = Recipe.digest.in_(
        select(RecipePatch.recipe_digest).where(RecipePatch.patch_version_id == version.id)
    )
    _check_unneeded(session, "patch version", version.reference, uses)
    version.deleted_at = func.now()
    similarity.forget(session, version)
    session.flush()


def delete_model(session: Session, name: Name, *, by: Principal) -> None:
    """Delete a model with all its versions, or nothing; raises `StillNeeded`."""
    model = lines.find(session, Model, name, lock=True)
    for alias in session.scalars(select(Alias).where(Alias.model_id == model.id)):
        alias.follows = True  # what falls with the model keeps nobody from deleting it
    living = select(ModelVersion).where(
        ModelVersion.model_id == model.id, ModelVersion.deleted_at.is_(None)
    )
    for version in session.scalars(living.order_by(ModelVersion.number.desc())).all():
        delete_model_version(session, version, by=by)
    for alias in session.scalars(select(Alias).where(Alias.model_id == model.id)):
        alias.follows = alias.key == aliases.MAIN  # should the model begin anew
    model.deleted_at = func.now()
    session.flush()


def delete_patch(session: Session, name: Name) -> None:
    """Delete a patch with all its versions, or nothing; raises `StillNeeded`."""
    patch = lines.find(session, Patch, name, lock=True)
    living = select(PatchVersion).where(
        PatchVersion.patch_id == patch.id, PatchVersion.deleted_at.is_(None)
    )
    for version in session.scalars(living).all():
        delete_patch_version(session, version)
    patch.deleted_at = func.now()
    session.flush()


def _wait_for_users(
    session: Session, table: type[ModelVersion | PatchVersion], version_id: int
) -> None:
    """Wait for the transactions that are saving recipes of a version: they hold its row."""
    session.execute(select(table.id).where(table.id == version_id).with_for_update())


def _check_unneeded(session: Session, kind: str, reference: str, uses: ColumnElement[bool]) -> None:
    followers = channels.pointing_at(session, uses, limit=SHOWN)
    built = session.scalars(
        select(Recipe.digest)
        .join(Build, Build.recipe_digest == Recipe.digest)
        .where(Build.state != EXPIRED, uses)
        .order_by(Recipe.digest)
        .limit(SHOWN)
    ).all()
    if followers or built:
        raise errors.StillNeeded(kind, reference, followers, list(built))


def _leave_aliases(session: Session, version: ModelVersion, by: Principal) -> None:
    """Move a following `main` to the newest version left; other aliases keep the version."""
    named = session.scalars(
        select(Alias)
        .where(Alias.model_id == version.model_id, Alias.version_number == version.number)
        .with_for_update()
    ).all()
    pinned = [alias.name for alias in named if not alias.follows]
    if pinned:
        raise errors.AliasesPoint(version.reference, pinned)
    newest = session.scalar(
        select(func.max(ModelVersion.number)).where(
            ModelVersion.model_id == version.model_id,
            ModelVersion.id != version.id,
            ModelVersion.deleted_at.is_(None),
        )
    )
    for alias in named:
        aliases.retreat(session, alias, newest or 0, by=by)


def _name(line: Model | Patch) -> Name:
    return Name(line.namespace, line.name)

"""Mutable names of a model's versions, with their history."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.models import Alias, AliasMove, Model, ModelVersion
from service.names import alias_name
from service.registry import moves
from service.registry.access import Principal
from service.registry.moves import Seen

MAIN = "main"


def find(session: Session, model: Model, name: str, *, lock: bool = False) -> Alias | None:
    """The model's alias of this name, in whatever case."""
    query = select(Alias).where(Alias.model_id == model.id, Alias.key == name.lower())
    return session.scalar(query.with_for_update() if lock else query)


def require(session: Session, model: Model, name: str) -> Alias:
    """The model's alias of this name; raises `ThingNotFound`."""
    alias = find(session, model, name)
    if alias is None:
        raise errors.ThingNotFound("alias", f"{model.full_name}@{name}")
    return alias


def point(
    session: Session, model: Model, name: str, number: int, *, seen: Seen, by: Principal
) -> Alias:
    """Point an alias at a version and add the move to its history.

    `model` is locked by the caller, so that two first moves cannot both be number 1.
    Raises `BadName`, `ThingNotFound`, `StateNotNamed`, `StateMoved`.
    """
    alias_name(name)
    living = select(ModelVersion.id).where(
        ModelVersion.model_id == model.id,
        ModelVersion.number == number,
        ModelVersion.deleted_at.is_(None),
    )
    if session.scalar(living) is None:
        raise errors.ThingNotFound("version", f"{model.full_name}@{number}")
    alias = find(session, model, name, lock=True)
    now = alias.head if alias else None
    moves.check("alias", f"{model.full_name}@{name}", seen=seen, now=now)
    alias = alias or _new(session, model, name, follows=False)
    alias.follows = False
    _move(session, alias, number, by)
    return alias


def advance(session: Session, model: Model, number: int, *, by: Principal) -> None:
    """Let `main` follow to a new version, unless somebody moved it by hand."""
    alias = find(session, model, MAIN, lock=True)
    if alias is None:
        alias = _new(session, model, MAIN, follows=True)
    if alias.follows:
        _move(session, alias, number, by)


def retreat(session: Session, alias: Alias, number: int, *, by: Principal) -> None:
    """Let a following alias go back to an earlier version; 0 names none until one is published."""
    _move(session, alias, number, by)


def listed(session: Session, model: Model) -> Sequence[Alias]:
    """The model's aliases by name."""
    return session.scalars(
        select(Alias).where(Alias.model_id == model.id).order_by(Alias.key)
    ).all()


def history(
    session: Session, alias: Alias, *, before: int | None, limit: int
) -> Sequence[AliasMove]:
    """Some moves of an alias, newest first, before move `before`."""
    query = select(AliasMove).where(AliasMove.alias_id == alias.id)
    if before is not None:
        query = query.where(AliasMove.number < before)
    return session.scalars(query.order_by(AliasMove.number.desc()).limit(limit)).all()


def _new(session: Session, model: Model, name: str, *, follows: bool) -> Alias:
    alias = Alias(
        model_id=model.id, name=name, key=name.lower(), version_number=0, head=0, follows=follows
    )
    session.add(alias)
    session.flush()
    return alias


def _move(session: Session, alias: Alias, number: int, by: Principal) -> None:
    alias.head += 1
    alias.version_number = number
    session.add(
        AliasMove(alias_id=alias.id, number=alias.head, version_number=number, moved_by=by.id)
    )
    session.flush()

"""Channels, their moves, and who follows a model or a patch."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from service.db.tables.builds import Build
from service.db.tables.channels import AT_HEAD, Channel, ChannelMove
from service.db.tables.models import Model, ModelVersion
from service.db.tables.recipes import Recipe, RecipePatch

FOLLOWERS_SHOWN: Final = 50

_MOVE: Final = (
    ChannelMove.number,
    ChannelMove.action,
    ChannelMove.base_reference,
    ChannelMove.entered,
    ChannelMove.reverted_to,
    ChannelMove.recipe_digest,
    ChannelMove.moved_by,
    ChannelMove.moved_at,
)


@dataclass(frozen=True, slots=True)
class MoveRow:
    """A move: what it did, and what the channel has pointed at since."""

    number: int
    action: str
    base: str
    entered: list[dict[str, Any]]
    """The patches as entered: {patch, version, scale}."""
    reverted_to: int | None
    recipe_digest: str
    moved_by: str
    moved_at: datetime


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """A channel with its last move."""

    key: str
    name: str
    move: MoveRow


def listed(session: Session, *, after: str | None, limit: int) -> list[ChannelRow]:
    """Some living channels by key."""
    living = Channel.deleted_at.is_(None)
    query = _pointing().where(living if after is None else living & (Channel.key > after))
    return _read(session, query.order_by(Channel.key).limit(limit))


def on_model(session: Session, model: Model) -> list[ChannelRow]:
    """The living channels that point at a recipe on some version of a model."""
    own = (
        select(Recipe.digest)
        .join(ModelVersion, ModelVersion.id == Recipe.base_version_id)
        .where(ModelVersion.model_id == model.id)
    )
    return _followers(session, ChannelMove.recipe_digest.in_(own))


def with_patch(session: Session, patch_version_id: int) -> list[ChannelRow]:
    """The living channels whose recipe holds a patch version."""
    own = select(RecipePatch.recipe_digest).where(RecipePatch.patch_version_id == patch_version_id)
    return _followers(session, ChannelMove.recipe_digest.in_(own))


def moves(session: Session, channel: Channel, *, before: int | None, limit: int) -> list[MoveRow]:
    """Some moves, newest first."""
    query = select(*_MOVE).where(ChannelMove.channel_id == channel.id)
    if before is not None:
        query = query.where(ChannelMove.number < before)
    rows = session.execute(query.order_by(ChannelMove.number.desc()).limit(limit))
    return [MoveRow(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a channel points: the version behind the recipe, and whether it is built."""

    base_version_id: int
    overlay_bytes: int
    build_state: str | None


def target(session: Session, recipe_digest: str) -> Target:
    """What stands behind a recipe."""
    query = (
        select(Recipe.base_version_id, Recipe.overlay_bytes, Build.state)
        .outerjoin(Build, Build.recipe_digest == Recipe.digest)
        .where(Recipe.digest == recipe_digest)
    )
    return Target(*session.execute(query).one())


def _pointing() -> Any:
    return select(Channel.key, Channel.namespace + "/" + Channel.name, *_MOVE).join(
        ChannelMove, AT_HEAD
    )


def _followers(session: Session, follows: ColumnElement[bool]) -> list[ChannelRow]:
    query = _pointing().where(Channel.deleted_at.is_(None), follows)
    return _read(session, query.order_by(Channel.key).limit(FOLLOWERS_SHOWN))


def _read(session: Session, query: Any) -> list[ChannelRow]:
    return [ChannelRow(key, name, MoveRow(*move)) for key, name, *move in session.execute(query)]

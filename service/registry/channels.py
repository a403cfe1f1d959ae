"""Channels: point a mutable name at a recipe, change its parts, go back; every move is kept."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.channels import AT_HEAD, Channel, ChannelMove
from service.db.tables.recipes import Recipe
from service.names import Digest, Name, scale_text
from service.registry import events, moves, recipes
from service.registry.access import Principal
from service.registry.moves import Seen
from service.registry.recipes import Fit, Resolved
from service.schemas.recipes import RecipeBody, RecipePart


@dataclass(frozen=True, slots=True)
class Entry:
    """A patch as the channel lists it; scale zero stays listed."""

    patch: str
    version: int
    scale: Decimal

    def json(self) -> dict[str, Any]:
        """As it stands in the history."""
        return {"patch": self.patch, "version": self.version, "scale": scale_text(self.scale)}


def find(session: Session, name: Name, *, lock: bool = False) -> Channel:
    """The channel of this name, in whatever case; raises `ThingNotFound` and `ThingDeleted`."""
    channel = _row(session, name, lock=lock)
    if channel is None:
        raise errors.ThingNotFound("channel", str(name))
    if channel.deleted_at is not None:
        raise errors.ThingDeleted("channel", str(name))
    return channel


def head(session: Session, channel: Channel) -> ChannelMove:
    """The channel's last move."""
    return move(session, channel, channel.head)


def pointed(session: Session, name: Name) -> tuple[int, Digest]:
    """The number of a channel's last move and the recipe that it set, in one query.

    What a fleet asks all day. Raises `ThingNotFound` and `ThingDeleted`.
    """
    row = session.execute(
        select(Channel.head, Channel.deleted_at, ChannelMove.recipe_digest)
        .join(ChannelMove, AT_HEAD)
        .where(Channel.key == name.key)
    ).one_or_none()
    if row is None:
        raise errors.ThingNotFound("channel", str(name))
    if row.deleted_at is not None:
        raise errors.ThingDeleted("channel", str(name))
    return row.head, Digest(row.recipe_digest)


def move(session: Session, channel: Channel, number: int) -> ChannelMove:
    """The move of this number; raises `ThingNotFound`."""
    found = session.get(ChannelMove, (channel.id, number))
    if found is None:
        raise errors.ThingNotFound("move", f"{channel.full_name} {number}")
    return found


def listed(
    session: Session, *, after: str | None, limit: int
) -> Sequence[tuple[Channel, ChannelMove]]:
    """Some living channels by key with their last moves, behind key `after`."""
    query = (
        select(Channel, ChannelMove).join(ChannelMove, AT_HEAD).where(Channel.deleted_at.is_(None))
    )
    if after is not None:
        query = query.where(Channel.key > after)
    rows = session.execute(query.order_by(Channel.key).limit(limit))
    return [(channel, last) for channel, last in rows]


def history(
    session: Session, channel: Channel, *, before: int | None, limit: int
) -> Sequence[ChannelMove]:
    """Some moves, newest first, before move `before`."""
    query = select(ChannelMove).where(ChannelMove.channel_id == channel.id)
    if before is not None:
        query = query.where(ChannelMove.number < before)
    return session.scalars(query.order_by(ChannelMove.number.desc()).limit(limit)).all()


def pointing_at(
    session: Session, which: ColumnElement[bool], *, limit: int | None = None
) -> list[str]:
    """The living channels whose last move set a recipe that meets a condition, by key."""
    query = (
        select(Channel)
        .join(ChannelMove, AT_HEAD)
        .join(Recipe, Recipe.digest == ChannelMove.recipe_digest)
        .where(Channel.deleted_at.is_(None), which)
    )
    rows = session.scalars(query.order_by(Channel.key).limit(limit))
    return [channel.full_name for channel in rows]


# ── moves ────────────────────────────────────────────────────────────────────────────────────


def point(
    session: Session,
    name: Name,
    recipe: RecipeBody | str,
    *,
    require: Fit,
    seen: Seen,
    by: Principal,
) -> tuple[ChannelMove, bool]:
    """Point a channel at a recipe, making the channel if need be; answers whether it is new.

    A deleted channel begins anew; its moves go on counting. Raises `StateNotNamed`, `StateMoved`
    and what `recipes.resolve` raises.
    """
    # One at a time: two first moves of a name must not both find nothing.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name.key, 0))))
    channel = _row(session, name, lock=True)
    alive = channel is not None and channel.deleted_at is None
    now = channel.head if channel is not None and alive else None
    moves.check("channel", str(name), seen=seen, now=now)
    resolved = recipes.resolve(session, recipe, require=require)
    if channel is None:
        channel = Channel(
            namespace=name.namespace, name=name.name, key=name.key, head=0, created_by=by.id
        )
        session.add(channel)
        session.flush()
    channel.deleted_at = None
    return _record(session, channel, "point", resolved, entered_of(resolved), by=by), not alive


def add(
    session: Session, name: Name, part: RecipePart, *, seen: Seen, by: Principal
) -> ChannelMove:
    """Add a patch to the channel's recipe; raises `ThingExists` where it is listed."""
    channel, last = _opened(session, name, seen)
    body = RecipeBody(base=last.base_reference, patches=[part])
    (fresh,) = entered_of(recipes.resolve(session, body, require="same_architecture"))
    entries = _entries(last)
    if any(entry.patch.lower() == fresh.patch.lower() for entry in entries):
        raise errors.ThingExists("patch", f"{fresh.patch} in channel {name}")
    return _change(session, channel, "add", last, [*entries, fresh], by=by)


def rescale(
    session: Session, name: Name, patch: Name, scale: Decimal, *, seen: Seen, by: Principal
) -> ChannelMove:
    """Give a listed patch another scale; raises `ThingNotFound` where it is not listed."""
    channel, last = _opened(session, name, seen)
    entries = _entries(last)
    at = _position(entries, patch, name)
    entries[at] = replace(entries[at], scale=scale)
    return _change(session, channel, "rescale", last, entries, by=by)


def drop(session: Session, name: Name, patch: Name, *, seen: Seen, by: Principal) -> ChannelMove:
    """Take a listed patch off; raises `ThingNotFound` where it is not listed."""
    channel, last = _opened(session, name, seen)
    entries = _entries(last)
    del entries[_position(entries, patch, name)]
    return _change(session, channel, "drop", last, entries, by=by)


def revert(
    session: Session, name: Name, to: int | Literal["clean"], *, seen: Seen, by: Principal
) -> ChannelMove:
    """Go back to what an earlier move set, or to the clean base; raises `ThingNotFound`."""
    channel, last = _opened(session, name, seen)
    if to == "clean":
        return _change(session, channel, "revert", last, [], by=by)
    target = move(session, channel, to)
    return _change(session, channel, "revert", target, _entries(target), by=by, reverted_to=to)


def delete(session: Session, name: Name, *, seen: Seen) -> None:
    """Delete a channel; its history stays, and the name may be pointed again later."""
    channel, _ = _opened(session, name, seen)
    channel.deleted_at = func.now()
    session.flush()
    events.announce(session, events.of_channel(channel.key))


def entered_of(resolved: Resolved) -> list[Entry]:
    """A resolved recipe's patches as entered, each pinned to its version.

    One entered twice is listed once, at the sum: a change names an entry by its patch.
    """
    entries: dict[tuple[str, int], Decimal] = {}
    for part in resolved.entered:
        key = (part.version.patch.full_name, part.version.number)
        entries[key] = entries.get(key, Decimal(0)) + part.scale
    return [Entry(patch, version, scale) for (patch, version), scale in entries.items()]


def _row(session: Session, name: Name, *, lock: bool) -> Channel | None:
    query = select(Channel).where(Channel.key == name.key)
    return session.scalar(query.with_for_update() if lock else query)


def _opened(session: Session, name: Name, seen: Seen) -> tuple[Channel, ChannelMove]:
    channel = find(session, name, lock=True)
    moves.check("channel", str(name), seen=seen, now=channel.head)
    return channel, head(session, channel)


def _entries(move: ChannelMove) -> list[Entry]:
    return [Entry(part["patch"], part["version"], Decimal(part["scale"])) for part in move.entered]


def _position(entries: Sequence[Entry], patch: Name, channel: Name) -> int:
    for at, entry in enumerate(entries):
        if entry.patch.lower() == patch.key:
            return at
    raise errors.ThingNotFound("patch", f"{patch} in channel {channel}")


def _change(
    session: Session,
    channel: Channel,
    action: str,
    on: ChannelMove,
    entries: Sequence[Entry],
    *,
    by: Principal,
    reverted_to: int | None = None,
) -> ChannelMove:
    """Record a move to `entries` on the base of move `on`."""
    body = RecipeBody(
        base=on.base_reference,
        patches=[
            RecipePart(patch=f"{entry.patch}@{entry.version}", scale=entry.scale)
            for entry in entries
        ],
    )
    resolved = recipes.resolve(session, body, require="same_architecture")
    return _record(session, channel, action, resolved, entries, by=by, reverted_to=reverted_to)


def _record(
    session: Session,
    channel: Channel,
    action: str,
    resolved: Resolved,
    entries: Sequence[Entry],
    *,
    by: Principal,
    reverted_to: int | None = None,
) -> ChannelMove:
    recipe = recipes.save(session, resolved, by=by)
    channel.head += 1
    made = ChannelMove(
        channel_id=channel.id,
        number=channel.head,
        action=action,
        recipe_digest=Digest(recipe.digest),
        base_reference=resolved.base.reference,
        entered=[entry.json() for entry in entries],
        reverted_to=reverted_to,
        moved_by=by.id,
    )
    session.add(made)
    session.flush()
    session.refresh(made)
    events.announce(session, events.of_channel(channel.key))
    return made

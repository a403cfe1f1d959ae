"""Channels: mutable names of recipes, what they point at, and every move they made."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response
from sqlalchemy.orm import Session

from service import errors
from service.api.v1 import views
from service.api.v1.lines import NOT_THERE
from service.api.v1.recipes import UNRESOLVED
from service.db.tables.channels import ChannelMove
from service.http import conditional, serving, waiting
from service.http.conditional import SeenMove, Wait, applied
from service.http.deps import ChannelPath, Config, DbSession, Mover, Parts, Reader
from service.http.downloads import download
from service.http.paging import Pages
from service.http.problems import answers
from service.http.ranges import has_it_already
from service.http.serving import UNSENT
from service.names import Digest, Name, short_patch_name
from service.registry import channels, events, recipes
from service.registry.access import Principal
from service.registry.plans import FilePlan, Part
from service.schemas.operations import Scope
from service.schemas.recipes import (
    ChannelView,
    MoveView,
    PointChannel,
    RecipePart,
    Rescale,
    Revert,
)
from service.schemas.wire import Page

router = APIRouter(prefix="/channels", tags=["channels"])

UNMOVED = (*NOT_THERE, errors.StateMoved, errors.StateNotNamed, *UNRESOLVED)
PatchInPath = Annotated[
    str, Path(max_length=130, description="`name` of the channel's namespace, or `namespace.name`.")
]


@router.get("", name="list")
def listed(session: DbSession, caller: Reader, paging: Pages) -> Page[ChannelView]:
    """List channels by name."""
    rows = channels.listed(session, after=paging.after(str), limit=paging.fetch)
    return paging.page(rows, key=lambda row: row[0].key, view=lambda row: views.channel(*row))


@router.get(
    "/{namespace}/{name}",
    name="read",
    response_model=ChannelView,
    responses={304: {"description": "It has not moved."}, **answers(*NOT_THERE)},
)
def read(
    name: ChannelPath,
    session: DbSession,
    caller: Reader,
    response: Response,
    if_none_match: Annotated[str | None, Header(max_length=1000)] = None,
) -> ChannelView | Response:
    """Read a channel; its ETag is the number of its last move."""
    channel = channels.find(session, name)
    etag = conditional.tag(channel.head)
    if has_it_already(if_none_match, str(channel.head)):
        return conditional.not_modified(etag)
    response.headers["ETag"] = etag
    return views.channel(channel, channels.head(session, channel))


@router.get("/{namespace}/{name}/moves", name="moves", responses=answers(*NOT_THERE))
def moves(name: ChannelPath, session: DbSession, caller: Reader, paging: Pages) -> Page[MoveView]:
    """List a channel's moves, newest first."""
    channel = channels.find(session, name)
    rows = channels.history(session, channel, before=paging.after(int), limit=paging.fetch)
    return paging.page(rows, key=lambda row: row.number, view=views.move)


# ── changes ──────────────────────────────────────────────────────────────────────────────────


def _moved(
    session: Session, parts: Parts, caller: Principal, move: ChannelMove, response: Response
) -> MoveView:
    """Answer a change; the build of where it points is begun, since somebody will pull it."""
    serving.start(session, parts, recipes.loaded(move.recipe), caller)
    response.headers["ETag"] = conditional.tag(move.number)
    return views.move(move)


@router.put(
    "/{namespace}/{name}",
    name="point",
    status_code=200,
    responses={201: {"description": "It is new.", "model": MoveView}, **answers(*UNMOVED)},
)
def point(
    name: ChannelPath,
    body: PointChannel,
    seen: SeenMove,
    session: DbSession,
    parts: Config,
    caller: Mover,
    response: Response,
) -> MoveView:
    """Point a channel at a recipe: `If-None-Match: *` for a new one, else `If-Match`."""
    caller.require(Scope.MOVE, name.namespace)
    move, new = channels.point(
        session, name, body.recipe, require=body.require, seen=seen, by=caller
    )
    response.status_code = 201 if new else 200
    return _moved(session, parts, caller, move, response)


@router.delete(
    "/{namespace}/{name}",
    name="delete",
    status_code=204,
    responses=answers(*NOT_THERE, errors.StateMoved, errors.StateNotNamed),
)
def delete(name: ChannelPath, seen: SeenMove, session: DbSession, caller: Mover) -> None:
    """Delete a channel; its history stays."""
    caller.require(Scope.MOVE, name.namespace)
    channels.delete(session, name, seen=seen)


@router.post(
    "/{namespace}/{name}/patches",
    name="add",
    responses=answers(*UNMOVED, errors.ThingExists),
)
def add(
    name: ChannelPath,
    body: RecipePart,
    seen: SeenMove,
    session: DbSession,
    parts: Config,
    caller: Mover,
    response: Response,
) -> MoveView:
    """Add a patch to the channel's recipe."""
    caller.require(Scope.MOVE, name.namespace)
    move = channels.add(session, name, body, seen=seen, by=caller)
    return _moved(session, parts, caller, move, response)


@router.patch("/{namespace}/{name}/patches/{patch}", name="rescale", responses=answers(*UNMOVED))
def rescale(
    name: ChannelPath,
    patch: PatchInPath,
    body: Rescale,
    seen: SeenMove,
    session: DbSession,
    parts: Config,
    caller: Mover,
    response: Response,
) -> MoveView:
    """Give a patch of the channel's recipe another scale; 0 keeps it listed but off."""
    caller.require(Scope.MOVE, name.namespace)
    target = short_patch_name(patch, name.namespace)
    move = channels.rescale(session, name, target, body.scale, seen=seen, by=caller)
    return _moved(session, parts, caller, move, response)


@router.delete("/{namespace}/{name}/patches/{patch}", name="drop", responses=answers(*UNMOVED))
def drop(
    name: ChannelPath,
    patch: PatchInPath,
    seen: SeenMove,
    session: DbSession,
    parts: Config,
    caller: Mover,
    response: Response,
) -> MoveView:
    """Take a patch off the channel's recipe."""
    caller.require(Scope.MOVE, name.namespace)
    target = short_patch_name(patch, name.namespace)
    move = channels.drop(session, name, target, seen=seen, by=caller)
    return _moved(session, parts, caller, move, response)


@router.post("/{namespace}/{name}/revert", name="revert", responses=answers(*UNMOVED))
def revert(
    name: ChannelPath,
    body: Revert,
    seen: SeenMove,
    session: DbSession,
    parts: Config,
    caller: Mover,
    response: Response,
) -> MoveView:
    """Go back to what an earlier move set, or to the clean base."""
    caller.require(Scope.MOVE, name.namespace)
    move = channels.revert(session, name, body.to, seen=seen, by=caller)
    return _moved(session, parts, caller, move, response)


# ── files ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Pointed:
    """What a channel pointed at when it was read; `file` None: it is to be built first."""

    move: int
    recipe: Digest
    file: FilePlan | None


async def _pull(
    request: Request,
    parts: Parts,
    caller: Principal,
    name: Name,
    *,
    part: Part,
    path: str | None,
    wait_s: float,
) -> Response:
    """Send the channel's file; a caller who has it already may wait for the next move."""

    def look(session: Session) -> _Pointed:
        move, recipe = channels.pointed(session, name)
        try:
            file = serving.plan(session, parts, recipe, part, path)
        except errors.BuildNotReady:
            return _Pointed(move, recipe, None)
        return _Pointed(move, recipe, file)

    async def planned(now: _Pointed) -> FilePlan:
        resolve = serving.resolving(now.recipe)
        return now.file or await serving.found(parts, resolve, caller, part=part, path=path)

    now = await waiting.read(parts.sessions, look)
    file = await planned(now)
    if wait_s and has_it_already(request.headers.get("if-none-match"), file.plan.etag):
        seen = now.move
        now = await waiting.until(
            parts.listener,
            parts.sessions,
            events.of_channel(name.key),
            look,
            done=lambda pointed: pointed.move != seen,
            wait_s=wait_s,
        )
        if now.move != seen:
            file = await planned(now)
    response = serving.sent(request, parts, file)
    response.headers["X-Patchbay-Move"] = str(now.move)
    response.headers["Cache-Control"] = "no-cache"
    applied(response, wait_s)
    return response


def _route(part: Part, summary: str) -> None:
    """Two routes: of the only file, and of the file at a path."""

    async def only(
        name: ChannelPath, request: Request, parts: Config, caller: Reader, wait_s: Wait
    ) -> Response:
        return await _pull(request, parts, caller, name, part=part, path=None, wait_s=wait_s)

    async def one(
        name: ChannelPath, path: str, request: Request, parts: Config, caller: Reader, wait_s: Wait
    ) -> Response:
        return await _pull(request, parts, caller, name, part=part, path=path, wait_s=wait_s)

    for route, function, called in (
        (f"/{{namespace}}/{{name}}/{part}", only, part.value),
        (f"/{{namespace}}/{{name}}/{part}/{{path:path}}", one, f"{part}_file"),
    ):
        register = download(
            router, route, name=called, responses=answers(*NOT_THERE, *UNSENT), description=summary
        )
        register(function)


_route(Part.WEIGHTS, "Download the patched file; `Prefer: wait=N` with `If-None-Match` long-polls.")
_route(Part.OVERLAY, "Download the changed tensors alone.")
_route(Part.UNDO, "Download the base's own bytes of the changed tensors.")

"""From a recipe to the bytes of a file: built where need be, then planned, then sent."""

from collections.abc import Callable
from typing import Final

from fastapi import Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service import errors
from service.api.v1 import operations as operation_routes
from service.api.v1.recipes import UNRESOLVED
from service.db.tables.builds import Build
from service.db.tables.operations import Operation
from service.http.deps import Parts
from service.http.sender import PlanResponse
from service.names import Digest
from service.registry import builds, recipes
from service.registry.access import Principal
from service.registry.builds import FilePlan, Part
from service.registry.recipes import Resolved
from service.schemas.operations import State

PULL_WAIT_S: Final = 60.0
"""How long a download waits for its build; most builds take a second or two."""

UNSENT = (
    errors.SeveralFiles,
    errors.BuildNotReady,
    errors.BuildFailed,
    errors.BuildUnderWay,
    errors.NoWorker,
    errors.QueueFull,
)
"""What sending a file of a build may raise."""

UNPULLED = (*UNRESOLVED, *UNSENT)
"""What pulling a recipe's file may raise."""


async def built(
    parts: Parts, resolve: Callable[[Session], Resolved], caller: Principal, wait_s: float
) -> Digest:
    """The recipe, once its build is ready.

    Raises `BuildNotReady` where the caller may not start it, `BuildUnderWay` after `wait_s`,
    `BuildFailed`, `NoWorker`, `QueueFull`, and what `resolve` raises.
    """
    digest, operation_id = await run_in_threadpool(_requested, parts, resolve, caller)
    if operation_id is not None:
        ended = await operation_routes.ended(parts, operation_id, wait_s)
        if not ended.state.ended:
            raise errors.BuildUnderWay(builds.hex_of(digest), operation_id)
        if ended.state is not State.SUCCEEDED:
            reason = (ended.problem or {}).get("detail", f"the operation was {ended.state}")
            raise errors.BuildFailed(builds.hex_of(digest), operation_id, str(reason))
    return digest


def _requested(
    parts: Parts, resolve: Callable[[Session], Resolved], caller: Principal
) -> tuple[Digest, str | None]:
    with parts.sessions.begin() as session:
        build, operation = ask(session, parts, resolve(session), caller)
        return Digest(build.recipe_digest), operation.id if operation else None


def ask(
    session: Session, parts: Parts, resolved: Resolved, caller: Principal
) -> tuple[Build, Operation | None]:
    """Ask for a build; who may not start one gets those that are ready.

    Raises `BuildNotReady`, `NoWorker`, `QueueFull`.
    """
    if caller.is_anonymous and not parts.anonymous_build and resolved.parts:
        return builds.ready(session, resolved.canonical.digest), None
    return builds.request(session, resolved, by=caller, limits=parts.limits)


def planned(parts: Parts, recipe: Digest, part: Part, path: str | None) -> FilePlan:
    """Plan a file of a ready build, in a transaction that ends before the bytes move."""
    with parts.sessions.begin() as session:
        return builds.plan(session, builds.ready(session, recipe), part, path)


def start(session: Session, parts: Parts, resolved: Resolved, caller: Principal) -> None:
    """Start a build that somebody will want soon; if it cannot start now, the first pull does."""
    try:
        builds.request(session, resolved, by=caller, limits=parts.limits)
    except (errors.NoWorker, errors.QueueFull):
        return


async def found(
    parts: Parts,
    resolve: Callable[[Session], Resolved],
    caller: Principal,
    *,
    part: Part,
    path: str | None,
    wait_s: float = 0,
) -> FilePlan:
    """The plan of a recipe's file, built where need be; raises what `built` and a plan raise."""
    recipe = await built(parts, resolve, caller, wait_s or PULL_WAIT_S)
    return await run_in_threadpool(planned, parts, recipe, part, path)


def sent(request: Request, parts: Parts, file: FilePlan) -> Response:
    """Send a planned file; which recipe it is stands in the headers, never in the bytes."""
    headers = {
        "X-Patchbay-Recipe": file.recipe,
        "X-Patchbay-Base": file.base,
        "X-Patchbay-Base-Digest": file.base_digest,
    }
    if file.overlay_digest is not None:
        headers["X-Patchbay-Overlay-Digest"] = file.overlay_digest
    return PlanResponse(request, file.plan, parts, headers=headers)


def resolving(recipe: str) -> Callable[[Session], Resolved]:
    """A resolver of a reference string or a recipe digest."""
    return lambda session: recipes.resolve(session, recipe, require="same_architecture")

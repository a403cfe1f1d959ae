"""From a recipe to the bytes of a file: built where need be, then planned, then sent."""

from collections.abc import Callable
from typing import Final

from fastapi import Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service import errors
from service.db.tables.builds import Build
from service.db.tables.operations import Operation
from service.http import waiting
from service.http.deps import Parts
from service.http.sender import PlanResponse
from service.names import Digest
from service.registry import builds, digests, plans, recipes
from service.registry.access import Principal
from service.registry.plans import FilePlan, Part
from service.registry.recipes import Resolved
from service.schemas.operations import OperationView, State

PULL_WAIT_S: Final = 60.0
"""How long a download waits for its build; most builds take a second or two."""

UNSENT = (
    errors.SeveralFiles,
    errors.BuildNotReady,
    errors.BuildFailed,
    errors.BuildUnderWay,
    errors.DamagedBlob,
    errors.NoWorker,
    errors.QueueFull,
)
"""What sending a file of a build may raise."""

Resolve = Callable[[Session], Resolved]


async def found(
    parts: Parts,
    resolve: Resolve,
    caller: Principal,
    *,
    part: Part,
    path: str | None,
    wait_s: float = 0,
) -> FilePlan:
    """The plan of a recipe's file, built where need be.

    Raises `BuildNotReady` where the caller may not start the build, `BuildUnderWay` after `wait_s`,
    `BuildFailed`, `NoWorker`, `QueueFull`, and what `resolve` and a plan raise.
    """

    def look(session: Session) -> FilePlan | tuple[Digest, str]:
        build, operation = ask(session, parts, resolve(session), caller)
        recipe = Digest(build.recipe_digest)
        if operation is not None:
            return recipe, operation.id
        return plan(session, parts, recipe, part, path)

    # One transaction for a build that is ready: a warm pull should cost one thread and no more.
    seen = await waiting.read(parts.sessions, look)
    if isinstance(seen, FilePlan):
        return seen
    recipe, operation_id = seen
    ended = await carried_out(parts, recipe, operation_id, wait_s or PULL_WAIT_S)
    if ended.kind != builds.BUILD:
        return await run_in_threadpool(planned, parts, recipe, part, path)
    # Its worker has it hashed in a moment; the first bytes need not wait for that.
    return await waiting.read(
        parts.sessions, lambda session: plans.find(session, parts.plans, recipe, part, path)
    )


async def carried_out(
    parts: Parts, recipe: Digest, operation_id: str, wait_s: float
) -> OperationView:
    """Wait for the operation that a recipe's files need; answers how it ended.

    Raises `BuildUnderWay` after `wait_s`, and `BuildFailed`.
    """
    ended = await waiting.ended(parts.listener, parts.sessions, operation_id, wait_s)
    if not ended.state.ended:
        raise errors.BuildUnderWay(builds.hex_of(recipe), operation_id)
    if ended.state is not State.SUCCEEDED:
        reason = (ended.problem or {}).get("detail", f"the operation was {ended.state}")
        raise errors.BuildFailed(builds.hex_of(recipe), operation_id, str(reason))
    return ended


def ask(
    session: Session, parts: Parts, resolved: Resolved, caller: Principal
) -> tuple[Build, Operation | None]:
    """Ask for a build; who may not start one gets those that are ready.

    Raises `BuildNotReady`, `NoWorker`, `QueueFull`.
    """
    if caller.is_anonymous and not parts.anonymous_build and resolved.parts:
        return builds.ready(session, resolved.canonical.digest), None
    return builds.request(session, resolved, by=caller, limits=parts.limits)


def hashing(session: Session, recipe: Digest) -> str | None:
    """The operation that hashes a ready build's files, begun where need be; None: all is known."""
    operation = digests.request(session, builds.ready(session, recipe))
    return operation.id if operation else None


def planned(parts: Parts, recipe: Digest, part: Part, path: str | None) -> FilePlan:
    """Plan a file of a ready build, in a transaction that ends before the bytes move."""
    with parts.sessions.begin() as session:
        return plan(session, parts, recipe, part, path)


def plan(session: Session, parts: Parts, recipe: Digest, part: Part, path: str | None) -> FilePlan:
    """Plan a file of a ready build; the first to want a patched file has it hashed.

    Raises `BuildNotReady`, `SeveralFiles`, `ThingNotFound`.
    """
    file = plans.find(session, parts.plans, recipe, part, path)
    if part is Part.WEIGHTS and file.plan.sha256 is None:
        hashing(session, recipe)
    return file


def start(session: Session, parts: Parts, resolved: Resolved, caller: Principal) -> None:
    """Start a build that somebody will want soon; if it cannot start now, the first pull does."""
    try:
        builds.request(session, resolved, by=caller, limits=parts.limits)
    except (errors.NoWorker, errors.QueueFull):
        return


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


def resolving(recipe: str) -> Resolve:
    """A resolver of a reference string or a recipe digest."""
    return lambda session: recipes.resolve(session, recipe, require="same_architecture")

"""The bytes of a file at a revision: `/{namespace}/{name}/resolve/{revision}/{path}`."""

from dataclasses import replace
from typing import Final
from urllib.parse import unquote

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from service import errors
from service.http import waiting
from service.http.deps import Parts
from service.http.sender import PlanResponse
from service.hub import building, refusals
from service.hub.revisions import Asked, Pinned, Revision, pin
from service.layout.splice import Plan, plan_plain
from service.names import Digest
from service.registry import models, plans
from service.registry.plans import Part

router = APIRouter()

_METHODS: Final = ["GET", "HEAD"]


@router.api_route("/{namespace}/{name}/resolve/{revision}/{path:path}", methods=_METHODS)
async def resolve(asked: Revision, path: str, request: Request) -> Response:
    """Send a file; its ETag is its sha256, its commit stands in `X-Repo-Commit`."""
    path = unquote(path)
    pinned, plan = await waiting.read(asked.parts.sessions, lambda s: _found(s, asked, path))
    if plan is None:
        recipe = pinned.resolved.canonical.digest
        await building.hashed(asked)
        found = await waiting.read(
            asked.parts.sessions,
            lambda s: plans.find(s, asked.parts.plans, recipe, Part.WEIGHTS, path),
        )
        plan = found.plan
    return _sent(request, asked.parts, plan, pinned)


def _found(session: Session, asked: Asked, path: str) -> tuple[Pinned, Plan | None]:
    """The plan of a file whose sha256 is known; None where a worker must see to it first."""
    pinned = pin(session, asked)
    resolved = pinned.resolved
    try:
        file = models.file(resolved.base, path)
    except errors.ThingNotFound as error:
        raise refusals.entry_not_found(str(error), pinned.commit) from error
    if not file.is_weights or not resolved.parts:
        return pinned, plan_plain(Digest(file.digest), file.size_bytes)
    try:
        found = plans.find(
            session, asked.parts.plans, resolved.canonical.digest, Part.WEIGHTS, path
        )
    except errors.BuildNotReady:
        return pinned, None
    return pinned, found.plan if found.plan.sha256 else None


def _sent(request: Request, parts: Parts, plan: Plan, pinned: Pinned) -> Response:
    assert plan.sha256 is not None  # noqa: S101  # `building.hashed` has seen to it
    named = replace(plan, etag=plan.sha256.removeprefix("sha256:"))
    headers = {
        "X-Repo-Commit": pinned.commit,
        "X-Patchbay-Recipe": pinned.resolved.canonical.digest,
    }
    return PlanResponse(request, named, parts, headers=headers)

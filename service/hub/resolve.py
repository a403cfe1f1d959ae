"""The bytes of a file at a revision: `/{namespace}/{name}/resolve/{revision}/{path}`."""

from dataclasses import dataclass, replace
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
from service.registry import blobs, models, plans, recipes
from service.registry.plans import Part

router = APIRouter()

_METHODS: Final = ["GET", "HEAD"]


@dataclass(frozen=True, slots=True)
class _Found:
    """A file of a revision; without a plan where it is `missing` or a worker must see to it."""

    pinned: Pinned
    plan: Plan | None
    missing: str = ""


@router.api_route("/{namespace}/{name}/resolve/{revision}/{path:path}", methods=_METHODS)
async def resolve(asked: Revision, path: str, request: Request) -> Response:
    """Send a file; its ETag is its sha256, its commit stands in `X-Repo-Commit`."""
    path = unquote(path)
    found = await waiting.read(asked.parts.sessions, lambda s: _found(s, asked, path))
    if found.missing:
        raise refusals.entry_not_found(found.missing, found.pinned.commit)
    plan = found.plan
    if plan is None:
        await building.hashed(asked)
        plan = await waiting.read(
            asked.parts.sessions, lambda s: _plan(s, asked.parts, found.pinned, path)
        )
    return _sent(request, asked.parts, plan, found.pinned)


def _found(session: Session, asked: Asked, path: str) -> _Found:
    """Find a file; nothing is raised once the recipe is recorded, whose commit is told."""
    pinned = pin(session, asked)
    resolved = pinned.resolved
    try:
        file = models.file(resolved.base, path)
    except errors.ThingNotFound as error:
        return _Found(pinned, None, missing=str(error))
    if not file.is_weights or not resolved.parts:
        blobs.require_sound(session, [Digest(file.digest)])
        return _Found(pinned, plan_plain(Digest(file.digest), file.size_bytes))
    try:
        plan = _plan(session, asked.parts, pinned, path)
    except errors.BuildNotReady:
        return _Found(pinned, None)
    return _Found(pinned, plan if plan.sha256 else None)


def _plan(session: Session, parts: Parts, pinned: Pinned, path: str) -> Plan:
    recipe = pinned.resolved.canonical.digest
    return plans.find(session, parts.plans, recipe, Part.WEIGHTS, path).plan


def _sent(request: Request, parts: Parts, plan: Plan, pinned: Pinned) -> Response:
    assert plan.sha256 is not None  # noqa: S101  # `building.hashed` has seen to it
    named = replace(plan, etag=plan.sha256.removeprefix("sha256:"))
    headers = {
        "X-Repo-Commit": pinned.commit,
        "X-Patchbay-Recipe": pinned.resolved.canonical.digest,
    }
    if warnings := recipes.warnings(pinned.resolved):
        # Clients show it once. It is written in ASCII, as are the names in it.
        headers["X-HF-Warning"] = f"recipe; {'; '.join(warnings)}"
    return PlanResponse(request, named, parts, headers=headers)

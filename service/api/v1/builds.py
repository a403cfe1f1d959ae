"""Builds: carried-out recipes and the files they give."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from service import errors
from service.api.v1 import operations as operation_routes
from service.api.v1 import views
from service.api.v1.recipes import UNRESOLVED
from service.http import serving
from service.http.deps import Config, DbSession, Parts, Publisher, Reader
from service.http.downloads import download
from service.http.paging import Pages
from service.http.problems import answers
from service.http.serving import UNSENT
from service.names import Digest, parse_digest
from service.registry import builds, recipes
from service.registry.plans import Part
from service.schemas.operations import OperationView, Scope
from service.schemas.recipes import BuildView, ManifestView, RequestBuild
from service.schemas.wire import Page

router = APIRouter(prefix="/builds", tags=["builds"])

BuildPath = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="Recipe digest in hex.")]


@router.post(
    "",
    name="request",
    response_model=BuildView,
    responses={
        202: {"description": "It is under way.", "model": OperationView},
        **answers(
            *UNRESOLVED,
            errors.BuildNotReady,
            errors.DamagedBlob,
            errors.NoWorker,
            errors.QueueFull,
        ),
    },
)
def request(body: RequestBuild, session: DbSession, parts: Config, caller: Reader) -> Response:
    """Ask for a recipe to be carried out: 200 with the build if it is ready, else 202."""
    resolved = recipes.resolve(session, body.recipe, require=body.require)
    build, operation = serving.ask(session, parts, resolved, caller)
    if operation is not None:
        session.refresh(operation)
        return operation_routes.accepted(operation)
    shown = views.build(build)
    return JSONResponse(
        shown.model_dump(mode="json"), 200, {"Content-Location": f"/v1/builds/{shown.id}"}
    )


@router.get("", name="list", responses=answers(errors.BadDigest))
def listed(
    session: DbSession,
    caller: Reader,
    paging: Pages,
    file: Annotated[
        str | None,
        Query(max_length=71, description="Only those that give a patched file of this sha256."),
    ] = None,
) -> Page[BuildView]:
    """List builds, newest first."""
    after = paging.after(tuple[datetime, str])
    digest = parse_digest(file) if file else None
    rows = builds.listed(session, file=digest, after=after, limit=paging.fetch)
    return paging.page(rows, key=lambda row: (row.created_at, row.recipe_digest), view=views.build)


@router.get("/{build_id}", name="read", responses=answers(errors.ThingNotFound))
def read(build_id: BuildPath, session: DbSession, caller: Reader) -> BuildView:
    """Read a build."""
    return views.build(builds.find(session, build_id))


@router.delete(
    "/{build_id}",
    name="expire",
    status_code=204,
    responses=answers(errors.ThingNotFound, errors.StillNeeded, errors.BuildNotReady),
)
def expire(build_id: BuildPath, session: DbSession, caller: Publisher) -> None:
    """Let go of a build's overlays; asked for again, they are made again, byte for byte."""
    build = builds.find(session, build_id)
    caller.require(Scope.PUBLISH, build.recipe.base.model.namespace)
    builds.expire(session, build)


@router.get(
    "/{build_id}/manifest",
    name="manifest",
    responses=answers(errors.ThingNotFound, errors.BuildNotReady),
)
def manifest(build_id: BuildPath, session: DbSession, caller: Reader) -> ManifestView:
    """Read what a ready build consists of: its recipe, and for each file the changed tensors."""
    build = builds.ready(session, Digest(builds.find(session, build_id).recipe_digest))
    return views.manifest(build)


async def _send(
    request: Request, parts: Parts, build_id: str, part: Part, path: str | None
) -> Response:
    recipe = Digest(f"sha256:{build_id}")
    planned = await run_in_threadpool(serving.planned, parts, recipe, part, path)
    return serving.sent(request, parts, planned)


def _route(part: Part, summary: str) -> None:
    """Two routes: of the only file, and of the file at a path."""

    async def only(
        build_id: BuildPath, request: Request, parts: Config, caller: Reader
    ) -> Response:
        return await _send(request, parts, build_id, part, None)

    async def one(
        build_id: BuildPath, path: str, request: Request, parts: Config, caller: Reader
    ) -> Response:
        return await _send(request, parts, build_id, part, path)

    for route, function, name in (
        (f"/{{build_id}}/{part}", only, part.value),
        (f"/{{build_id}}/{part}/{{path:path}}", one, f"{part}_file"),
    ):
        register = download(
            router,
            route,
            name=name,
            responses=answers(errors.ThingNotFound, *UNSENT),
            description=summary,
        )
        register(function)


_route(Part.WEIGHTS, "Download the patched file.")
_route(Part.OVERLAY, "Download the changed tensors alone.")
_route(Part.UNDO, "Download the base's own bytes of the changed tensors.")

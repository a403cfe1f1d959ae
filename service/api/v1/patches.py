"""Patches: lines of signatures, their versions, and the extractions that make them."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from service import errors
from service.api.v1 import operations as operation_routes
from service.api.v1 import views
from service.api.v1.lines import NOT_THERE, add_routes
from service.db.tables.operations import Operation
from service.db.tables.patches import Patch
from service.http.deps import Config, DbSession, PatchPath, Publisher, Reader, patch_in_path
from service.http.downloads import download
from service.http.paging import Pages
from service.http.plain import PlainResponse
from service.http.problems import answers
from service.http.sender import PlanResponse
from service.layout import patchfile
from service.layout.splice import plan_plain
from service.names import Digest, model_name
from service.registry import blobs, patches, retirement
from service.schemas.operations import OperationView, Scope
from service.schemas.patches import (
    PatchVersionView,
    PatchView,
    PublishPatchVersion,
)
from service.schemas.wire import Page, Withdraw

router = APIRouter(prefix="/patches", tags=["patches"])

NumberPath = Annotated[int, Path(ge=1, lt=2**31)]


@router.get("", name="list", responses=answers(errors.BadName))
def listed(
    session: DbSession,
    caller: Reader,
    paging: Pages,
    q: Annotated[str, Query(max_length=200, description="Words of names, or labels.")] = "",
    base: Annotated[
        str | None, Query(max_length=200, description="Only those extracted on this model.")
    ] = None,
    label: Annotated[str | None, Query(max_length=63)] = None,
) -> Page[PatchView]:
    """List patches by name."""
    rows = patches.listed(
        session,
        words=q,
        label=label,
        base=model_name(base) if base else None,
        after=paging.after(str),
        limit=paging.fetch,
    )
    return paging.page(rows, key=lambda row: row.key, view=PatchView.model_validate)


add_routes(
    router,
    Patch,
    PatchView,
    patch_in_path,
    lambda session, name, _caller: retirement.delete_patch(session, name),
)


# ── making versions ──────────────────────────────────────────────────────────────────────────


@router.post(
    "/{namespace}/{name}/versions",
    name="publish",
    status_code=202,
    response_model=OperationView,
    responses={
        200: {"description": "This file is a version already.", "model": PatchVersionView},
        **answers(
            *NOT_THERE,
            errors.BlobNotFound,
            errors.NotSafetensors,
            errors.NotAPatchFile,
            errors.QueueFull,
            errors.StoreUnavailable,
        ),
    },
)
def publish(
    name: PatchPath, body: PublishPatchVersion, parts: Config, caller: Publisher
) -> Response:
    """Publish a patch file made elsewhere: its header is checked now, a worker decodes the rest."""
    caller.require(Scope.PUBLISH, name.namespace)
    blob = Digest(body.blob)
    with parts.sessions.begin() as session:
        size_bytes = blobs.find(session, blob).size_bytes
    patchfile.read(lambda start, end: parts.store.read(blob, start, end), size_bytes)
    profile = Digest(body.profile) if body.profile else None
    with parts.sessions.begin() as session:
        made = patches.request_publication(
            session, name, blob, profile, by=caller, limits=parts.limits
        )
        if isinstance(made, Operation):
            session.flush()
            session.refresh(made)
            return operation_routes.accepted(made)
        shown = views.patch_version(made)
    location = f"/v1/patches/{shown.patch}/versions/{shown.number}"
    return JSONResponse(shown.model_dump(mode="json"), 200, {"Location": location})


# ── versions ─────────────────────────────────────────────────────────────────────────────────


@router.get("/{namespace}/{name}/versions", name="versions", responses=answers(*NOT_THERE))
def versions(
    name: PatchPath, session: DbSession, caller: Reader, paging: Pages
) -> Page[PatchVersionView]:
    """List a patch's versions, newest first."""
    rows = patches.versions(session, name, before=paging.after(int), limit=paging.fetch)
    return paging.page(rows, key=lambda row: row.number, view=views.patch_version)


@router.get("/{namespace}/{name}/versions/{number}", name="version", responses=answers(*NOT_THERE))
def version(
    name: PatchPath, number: NumberPath, session: DbSession, caller: Reader
) -> PatchVersionView:
    """Read a version."""
    return views.patch_version(patches.resolve(session, name, number))


@download(
    router,
    "/{namespace}/{name}/versions/{number}/file",
    name="file",
    responses=answers(*NOT_THERE, errors.DamagedBlob),
    redirects=True,
)
def file(
    name: PatchPath,
    number: NumberPath,
    request: Request,
    session: DbSession,
    parts: Config,
    caller: Reader,
) -> Response:
    """Download the patch file."""
    found = patches.resolve(session, name, number)
    blobs.require_sound(session, [Digest(found.digest)])
    return PlainResponse(request, parts, Digest(found.digest), found.size_bytes)


@download(
    router,
    "/{namespace}/{name}/versions/{number}/profile",
    name="profile",
    responses=answers(*NOT_THERE),
)
def profile(
    name: PatchPath,
    number: NumberPath,
    request: Request,
    session: DbSession,
    parts: Config,
    caller: Reader,
) -> Response:
    """Download the profile: JSON, one entry a layer, over all layers of the models."""
    found = patches.resolve(session, name, number)
    if found.profile_digest is None:
        raise errors.ThingNotFound("profile", found.reference)
    size_bytes = blobs.find(session, Digest(found.profile_digest)).size_bytes
    plan = plan_plain(Digest(found.profile_digest), size_bytes)
    return PlanResponse(request, plan, parts, media_type="application/json")


@router.post(
    "/{namespace}/{name}/versions/{number}/withdraw", name="withdraw", responses=answers(*NOT_THERE)
)
def withdraw(
    name: PatchPath, number: NumberPath, body: Withdraw, session: DbSession, caller: Publisher
) -> PatchVersionView:
    """Take a version out of choice; whoever pinned it still gets it."""
    caller.require(Scope.PUBLISH, name.namespace)
    found = patches.resolve(session, name, number)
    retirement.withdraw(session, found, body.reason)
    return views.patch_version(found)


@router.delete(
    "/{namespace}/{name}/versions/{number}",
    name="delete_version",
    status_code=204,
    responses=answers(*NOT_THERE, errors.StillNeeded),
)
def delete_version(
    name: PatchPath, number: NumberPath, session: DbSession, caller: Publisher
) -> None:
    """Delete a version; refused while a channel or a build needs it."""
    caller.require(Scope.PUBLISH, name.namespace)
    retirement.delete_patch_version(session, patches.resolve(session, name, number))

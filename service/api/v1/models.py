"""Models: lines of base weights, their versions, files, tensors and aliases."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from service import errors
from service.api.v1 import publishing, views
from service.api.v1.lines import NOT_THERE, add_routes
from service.db.tables.models import Model, ModelVersion
from service.http import conditional
from service.http.conditional import SeenMove
from service.http.deps import (
    Config,
    DbSession,
    ModelPath,
    Mover,
    Publisher,
    Reader,
    model_in_path,
)
from service.http.downloads import download
from service.http.paging import Pages
from service.http.plain import PlainResponse
from service.http.problems import answers
from service.names import Digest, Name, Reference
from service.registry import aliases, blobs, lines, models, retirement
from service.schemas.models import (
    AliasMoveView,
    AliasView,
    ModelVersionView,
    ModelView,
    PublishModelVersion,
    SetAlias,
    TensorView,
)
from service.schemas.operations import OperationView, Scope
from service.schemas.wire import Page, Withdraw

router = APIRouter(prefix="/models", tags=["models"])

VersionPath = Annotated[
    str, Path(max_length=97, description="A number or an alias.", examples=["3"])
]
AliasPath = Annotated[str, Path(max_length=97, examples=["production"])]


@router.get("", name="list")
def listed(
    session: DbSession,
    caller: Reader,
    paging: Pages,
    q: Annotated[str, Query(max_length=200, description="Words of names, or labels.")] = "",
    label: Annotated[str | None, Query(max_length=63)] = None,
) -> Page[ModelView]:
    """List models by name."""
    rows = lines.listed(
        session, Model, words=q, label=label, after=paging.after(str), limit=paging.fetch
    )
    return paging.page(rows, key=lambda row: row.key, view=ModelView.model_validate)


add_routes(
    router,
    Model,
    ModelView,
    model_in_path,
    lambda session, name, caller: retirement.delete_model(session, name, by=caller),
)


# ── versions ─────────────────────────────────────────────────────────────────────────────────


@router.post(
    "/{namespace}/{name}/versions",
    name="publish",
    status_code=201,
    response_model=ModelVersionView,
    responses={
        200: {"description": "These files are a version already.", "model": ModelVersionView},
        202: {"description": "Checkpoints are being converted.", "model": OperationView},
        **answers(
            *NOT_THERE,
            errors.BlobNotFound,
            errors.NotSafetensors,
            errors.UnsupportedFormat,
            errors.BadFileSet,
            errors.BadForwardOrder,
            errors.QueueFull,
            errors.StoreUnavailable,
        ),
    },
)
def publish(
    name: ModelPath, body: PublishModelVersion, parts: Config, caller: Publisher
) -> Response:
    """Publish uploaded blobs as the next version; the header of each weight file is checked.

    PyTorch checkpoints are converted to safetensors first: 202 with an operation that a worker
    carries out, whose result names the version.
    """
    caller.require(Scope.PUBLISH, name.namespace)
    files = {path: Digest(digest) for path, digest in body.files.items()}
    return publishing.publish(parts, name, files, body.forward_order, by=caller)


def _version(session: DbSession, name: Name, version: str) -> ModelVersion:
    return models.resolve(session, Reference(name, version))


@router.get("/{namespace}/{name}/versions", name="versions", responses=answers(*NOT_THERE))
def versions(
    name: ModelPath, session: DbSession, caller: Reader, paging: Pages
) -> Page[ModelVersionView]:
    """List a model's versions, newest first."""
    rows = models.versions(session, name, before=paging.after(int), limit=paging.fetch)
    return paging.page(rows, key=lambda row: row.number, view=views.model_version)


@router.get("/{namespace}/{name}/versions/{version}", name="version", responses=answers(*NOT_THERE))
def version(
    name: ModelPath, version: VersionPath, session: DbSession, caller: Reader
) -> ModelVersionView:
    """Read a version."""
    return views.model_version(_version(session, name, version))


@router.get(
    "/{namespace}/{name}/versions/{version}/tensors", name="tensors", responses=answers(*NOT_THERE)
)
def tensors(
    name: ModelPath, version: VersionPath, session: DbSession, caller: Reader, paging: Pages
) -> Page[TensorView]:
    """List a version's tensors in file order, file by file."""
    found = _version(session, name, version)
    path, at = paging.after(tuple[str, int]) or ("", -1)
    places = {tuple(address): n for n, address in enumerate(found.forward_order or ())}
    rows = [
        (file, number, tensor)
        for file, header in models.headers(session, found.weight_files).items()
        for number, tensor in enumerate(header.tensors)
        if (file, number) > (path, at)
    ]
    return paging.page(
        rows[: paging.fetch],
        key=lambda row: (row[0], row[1]),
        view=lambda row: TensorView(
            path=row[0],
            name=row[2].name,
            dtype=row[2].dtype,
            shape=list(row[2].shape),
            size_bytes=row[2].size_bytes,
            place=places.get((row[0], row[2].name)),
        ),
    )


@download(
    router,
    "/{namespace}/{name}/versions/{version}/files/{path:path}",
    name="file",
    responses=answers(*NOT_THERE, errors.DamagedBlob),
    redirects=True,
)
def file(
    name: ModelPath,
    version: VersionPath,
    path: str,
    request: Request,
    session: DbSession,
    parts: Config,
    caller: Reader,
) -> Response:
    """Download a file of a version; `Range` and conditions as on any plain file."""
    found = models.file(_version(session, name, version), path)
    blobs.require_sound(session, [Digest(found.digest)])
    return PlainResponse(request, parts, Digest(found.digest), found.size_bytes)


@router.post(
    "/{namespace}/{name}/versions/{version}/withdraw",
    name="withdraw",
    responses=answers(*NOT_THERE),
)
def withdraw(
    name: ModelPath, version: VersionPath, body: Withdraw, session: DbSession, caller: Publisher
) -> ModelVersionView:
    """Take a version out of choice; whoever pinned it still gets it."""
    caller.require(Scope.PUBLISH, name.namespace)
    found = _version(session, name, version)
    retirement.withdraw(session, found, body.reason)
    return views.model_version(found)


@router.delete(
    "/{namespace}/{name}/versions/{number}",
    name="delete_version",
    status_code=204,
    responses=answers(*NOT_THERE, errors.StillNeeded, errors.AliasesPoint),
)
def delete_version(
    name: ModelPath,
    number: Annotated[int, Path(ge=1, lt=2**31)],
    session: DbSession,
    caller: Publisher,
) -> None:
    """Delete a version; refused while an alias, a channel or a build needs it."""
    caller.require(Scope.PUBLISH, name.namespace)
    found = models.version(session, name, number)
    retirement.delete_model_version(session, found, by=caller)


# ── aliases ──────────────────────────────────────────────────────────────────────────────────


@router.get("/{namespace}/{name}/aliases", name="aliases", responses=answers(*NOT_THERE))
def aliases_of(name: ModelPath, session: DbSession, caller: Reader) -> list[AliasView]:
    """List a model's aliases."""
    model = lines.find(session, Model, name)
    return [views.alias(row) for row in aliases.listed(session, model)]


@router.get("/{namespace}/{name}/aliases/{alias}", name="alias", responses=answers(*NOT_THERE))
def alias(
    name: ModelPath,
    alias: AliasPath,
    session: DbSession,
    caller: Reader,
    response: Response,
) -> AliasView:
    """Read an alias; its ETag is the number of its last move."""
    row = aliases.require(session, lines.find(session, Model, name), alias)
    response.headers["ETag"] = conditional.tag(row.head)
    return views.alias(row)


@router.put(
    "/{namespace}/{name}/aliases/{alias}",
    name="move_alias",
    responses=answers(*NOT_THERE, errors.StateMoved, errors.StateNotNamed),
)
def move_alias(
    name: ModelPath,
    alias: AliasPath,
    body: SetAlias,
    seen: SeenMove,
    session: DbSession,
    caller: Mover,
    response: Response,
) -> AliasView:
    """Point an alias at a version, from the state that `If-Match` names."""
    caller.require(Scope.MOVE, name.namespace)
    model = lines.find(session, Model, name, lock=True)
    row = aliases.point(session, model, alias, body.version, seen=seen, by=caller)
    response.headers["ETag"] = conditional.tag(row.head)
    return views.alias(row)


@router.get(
    "/{namespace}/{name}/aliases/{alias}/history",
    name="alias_history",
    responses=answers(*NOT_THERE),
)
def alias_history(
    name: ModelPath, alias: AliasPath, session: DbSession, caller: Reader, paging: Pages
) -> Page[AliasMoveView]:
    """List an alias's moves, newest first."""
    row = aliases.require(session, lines.find(session, Model, name), alias)
    rows = aliases.history(session, row, before=paging.after(int), limit=paging.fetch)
    return paging.page(rows, key=lambda move: move.number, view=views.alias_move)

"""Uploads in parts: what a large blob is sent by, over bad networks and past restarts."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from service import errors
from service.api.v1 import operations as operation_routes
from service.api.v1.blobs import known_size
from service.blobs.staging import Staged
from service.db.tables.uploads import Upload
from service.http.deps import Config, Parts, Publisher
from service.http.problems import answers
from service.http.receiving import announced, receive, stated_digest
from service.names import Digest
from service.registry import uploads
from service.registry.access import Principal
from service.schemas.operations import OperationView
from service.schemas.uploads import BeginUpload, PartView, UploadState, UploadView
from service.schemas.wire import BlobView

router = APIRouter(prefix="/uploads", tags=["uploads"])

URLS_EXPIRE_S: Final = 3600
PAGE: Final = 64
MAX_PAGE: Final = 500
"""A signature takes about half a millisecond."""

UploadPath = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="The upload's id.")]
Number = Annotated[int, Path(ge=1, le=2**31, description="The part's number, counted from 1.")]
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_GONE = (errors.ThingNotFound, errors.UploadEnded, errors.StoreUnavailable)


@router.post(
    "",
    name="begin",
    status_code=201,
    response_model=UploadView,
    responses={
        200: {"description": "The blob is there already.", "model": BlobView},
        **answers(
            errors.UploadEnded, errors.UploadTooLarge, errors.StoreUnavailable, errors.DiskFull
        ),
    },
)
def begin(body: BeginUpload, parts: Config, caller: Publisher) -> Response:
    """Begin to send a blob in parts, or go on: your own upload of these bytes, if you have one.

    PUT each part to its address, in any order, several at a time, each as often as need be; then
    complete the upload. The service checks `Content-Digest` (RFC 9530), an S3 store `Content-MD5`.
    """
    digest = Digest(body.digest)
    if body.size_bytes > parts.upload_limit_bytes:
        raise errors.UploadTooLarge(body.size_bytes, parts.upload_limit_bytes)
    if (size_bytes := known_size(parts, digest)) is not None:
        shown = BlobView(digest=digest, size_bytes=size_bytes).model_dump()
        return JSONResponse(shown, 200, {"Location": f"/v1/blobs/{digest}"})
    view = _going_on(parts, digest, body.size_bytes, caller) or _new(
        parts, digest, body.size_bytes, caller
    )
    return JSONResponse(view.model_dump(mode="json"), 201, {"Location": f"/v1/uploads/{view.id}"})


def _going_on(
    parts: Parts, digest: Digest, size_bytes: int, caller: Principal
) -> UploadView | None:
    with parts.sessions.begin() as session:
        upload = uploads.under_way(session, digest, size_bytes, by=caller)
        if upload is None:
            return None
        state = uploads.state(session, upload)
    try:
        return _view(parts, upload, state)
    except errors.UploadEnded:  # the store has lost it
        with parts.sessions.begin() as session:
            uploads.lose(session, upload.id)
        return None


def _new(parts: Parts, digest: Digest, size_bytes: int, caller: Principal) -> UploadView:
    # The store first: an upload that nobody recorded is litter, the reverse a lie.
    begun = parts.store.staging.begin(uuid.uuid4().hex, digest, size_bytes)
    try:
        with parts.sessions.begin() as session:
            upload = uploads.begin(session, begun, by=caller)
            state = uploads.state(session, upload)
    except BaseException:
        parts.store.staging.discard(begun)
        raise
    if upload.id != begun.id:
        parts.store.staging.discard(begun)
    return _view(parts, upload, state)


@router.get("/{upload_id}", name="read", responses=answers(*_GONE))
def read(
    upload_id: UploadPath,
    parts: Config,
    caller: Publisher,
    after: Annotated[int, Query(ge=0, description="Behind this part.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="How many addresses.")] = PAGE,
) -> UploadView:
    """Read which parts have arrived, and where to send the next ones; the addresses are fresh."""
    with parts.sessions.begin() as session:
        upload = uploads.find(session, upload_id, by=caller)
        state = uploads.state(session, upload)
    return _view(parts, upload, state, after=after, limit=limit)


@router.put(
    "/{upload_id}/parts/{number}",
    name="send",
    status_code=204,
    responses=answers(
        *_GONE,
        errors.UploadSealed,
        errors.PartSizeWrong,
        errors.DigestMismatch,
        errors.BodyTooLong,
        errors.BodyCutOff,
        errors.UploadTooLarge,
        errors.DiskFull,
    ),
    openapi_extra={"requestBody": {"required": True, "content": _BYTES}},
)
async def send(
    upload_id: UploadPath, number: Number, request: Request, parts: Config, caller: Publisher
) -> None:
    """Send a part through the service; a part that is sent again takes the place of the first."""
    staged = await run_in_threadpool(_to_send_to, parts, upload_id, caller)
    expected, size = staged.part_size(number), announced(request)
    if size is not None and size != expected:
        raise errors.PartSizeWrong(number, expected, size)
    digest = stated_digest(request)
    await receive(
        request,
        lambda: parts.store.staging.part_writer(staged, number, digest),
        limit_bytes=parts.upload_limit_bytes,
        limiter=parts.transfers,
    )


def _to_send_to(parts: Parts, upload_id: str, caller: Principal) -> Staged:
    with parts.sessions.begin() as session:
        return uploads.to_send_to(session, upload_id, by=caller)


@router.post(
    "/{upload_id}/complete",
    name="complete",
    status_code=202,
    response_model=OperationView,
    responses=answers(*_GONE, errors.PartsMissing, errors.QueueFull),
)
def complete(upload_id: UploadPath, parts: Config, caller: Publisher) -> Response:
    """Say that all parts are sent: a worker reads the whole, hashes it, and makes it a blob.

    Said again, the answer is the same operation, or a new one where that was stopped.
    """
    with parts.sessions.begin() as session:
        upload = uploads.find(session, upload_id, by=caller)
        is_open = uploads.state(session, upload) is UploadState.OPEN
    arrived = parts.store.staging.arrived(uploads.staged(upload)) if is_open else frozenset()
    with parts.sessions.begin() as session:
        operation = uploads.complete(session, upload_id, arrived, by=caller, limits=parts.limits)
        session.refresh(operation)
    return operation_routes.accepted(operation)


@router.delete(
    "/{upload_id}",
    name="abort",
    status_code=204,
    responses=answers(*_GONE, errors.UploadSealed),
)
def abort(upload_id: UploadPath, parts: Config, caller: Publisher) -> None:
    """Give an upload up, and free the room that its parts take."""
    with parts.sessions.begin() as session:
        staged = uploads.abort(session, upload_id, by=caller)
    parts.store.staging.discard(staged)


def _view(
    parts: Parts, upload: Upload, state: UploadState, *, after: int = 0, limit: int = PAGE
) -> UploadView:
    staged, staging = uploads.staged(upload), parts.store.staging
    arrived = set(range(1, staged.part_count + 1))
    if state is UploadState.OPEN:
        arrived = set(staging.arrived(staged))
    expire_at = datetime.now(UTC) + timedelta(seconds=URLS_EXPIRE_S)
    missing = [number for number in staged.missing(arrived) if number > after][:limit]
    return UploadView(
        id=upload.id,
        digest=upload.digest,
        size_bytes=upload.size_bytes,
        part_bytes=upload.part_bytes,
        part_count=staged.part_count,
        state=state,
        operation=upload.operation_id,
        expires_at=upload.expires_at,
        arrived=sorted(arrived),
        parts=[
            PartView(
                number=number,
                size_bytes=staged.part_size(number),
                url=staging.part_url(staged, number, URLS_EXPIRE_S)
                or f"/v1/uploads/{upload.id}/parts/{number}",
            )
            for number in missing
        ],
        parts_expire_at=expire_at if missing else None,
    )

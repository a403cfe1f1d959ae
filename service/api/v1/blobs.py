"""Blobs: bytes in and out, named by their sha256."""

from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from service import errors
from service.http.deps import Config, DigestPath, Parts, Publisher, Reader
from service.http.downloads import download
from service.http.plain import PlainResponse
from service.http.problems import answers
from service.http.receiving import announced, pass_over, receive
from service.names import Digest
from service.registry import blobs
from service.schemas.wire import BlobView

router = APIRouter(prefix="/blobs", tags=["blobs"])

FOR_EVER: Final = {"Cache-Control": "max-age=31536000, immutable"}
"""What is named by its digest never changes. Where reading needs a token, only the caller's own
cache keeps it (RFC 9111 section 3.5)."""

_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


@download(
    router,
    "/{digest}",
    name="read",
    responses=answers(errors.BadDigest, errors.BlobNotFound, errors.DamagedBlob),
    redirects=True,
)
def read(request: Request, digest: DigestPath, parts: Config, caller: Reader) -> Response:
    """Read a blob, whole or a range of it."""
    with parts.sessions.begin() as session:  # ends before the bytes move
        size_bytes = blobs.find(session, digest).size_bytes
    return PlainResponse(request, parts, digest, size_bytes, headers=FOR_EVER)


@router.put(
    "/{digest}",
    name="store",
    status_code=201,
    response_model=BlobView,
    responses={
        200: {"description": "It was stored before.", "model": BlobView},
        **answers(
            errors.BadDigest,
            errors.DigestMismatch,
            errors.BodyTooLong,
            errors.BodyCutOff,
            errors.UploadTooLarge,
            errors.StoreUnavailable,
            errors.DatabaseUnavailable,
            errors.DiskFull,
        ),
    },
    openapi_extra={"requestBody": {"required": True, "content": _BYTES}},
)
async def store(request: Request, digest: DigestPath, parts: Config, caller: Publisher) -> Response:
    """Store a blob: the body is hashed as it arrives, and kept only if it is what its name says."""
    size, limit_bytes = announced(request), parts.upload_limit_bytes
    if size is not None and size > limit_bytes:
        raise errors.UploadTooLarge(size, limit_bytes)
    found, replace = await run_in_threadpool(_look, parts, digest)
    if found is not None:
        await pass_over(request, limit_bytes)
        return _answer(200, digest, found)
    size_bytes = await receive(
        request,
        lambda: parts.store.writer(digest, size, replace=replace),
        limit_bytes=limit_bytes,
        limiter=parts.transfers,
    )
    new = await run_in_threadpool(_record, parts, digest, size_bytes)
    return _answer(201 if new else 200, digest, size_bytes)


def known_size(parts: Parts, digest: Digest) -> int | None:
    """The size of a blob that needs no upload: known here, and in the store as it should be."""
    return _look(parts, digest)[0]


def _look(parts: Parts, digest: Digest) -> tuple[int | None, bool]:
    """The size of a blob that needs no upload; else whether the store may hold a damaged one."""
    with parts.sessions.begin() as session:
        blob = blobs.known(session, digest)
        damaged = blob is None and blobs.is_damaged(session, digest)
    if blob is None:
        return None, damaged
    whole = parts.store.stat(digest) == blob.size_bytes
    return (blob.size_bytes, False) if whole else (None, True)


def _record(parts: Parts, digest: Digest, size_bytes: int) -> bool:
    with parts.sessions.begin() as session:
        new = blobs.record(session, digest, size_bytes)
        if parts.store.stat(digest) is None:  # what was there before was collected just now
            raise errors.StoreUnavailable(f"blob {digest} was collected meanwhile; send it again")
        return new


def _answer(status: int, digest: Digest, size_bytes: int) -> Response:
    shown = BlobView(digest=digest, size_bytes=size_bytes).model_dump()
    return JSONResponse(shown, status, {"Location": f"/v1/blobs/{digest}"})

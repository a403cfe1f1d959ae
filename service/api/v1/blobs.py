"""Blobs: bytes in and out, named by their sha256."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import anyio
from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from service import errors, observability
from service.http.deps import Config, DigestPath, Parts, Publisher, Reader
from service.http.downloads import download
from service.http.problems import answers
from service.http.sender import PlanResponse
from service.layout.splice import plan_plain
from service.names import Digest
from service.registry import blobs
from service.schemas.wire import BlobView

router = APIRouter(prefix="/blobs", tags=["blobs"])

PIECE_BYTES: Final = 2**20
STALLED_AFTER_S: Final = 60.0
"""An upload that sends nothing for so long is cut off."""

FOR_EVER: Final = {"Cache-Control": "max-age=31536000, immutable"}
"""What is named by its digest never changes. Where reading needs a token, only the caller's own
cache keeps it (RFC 9111 section 3.5)."""

_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


@download(
    router,
    "/{digest}",
    name="read",
    responses=answers(errors.BadDigest, errors.BlobNotFound),
)
def read(request: Request, digest: DigestPath, parts: Config, caller: Reader) -> Response:
    """Read a blob, whole or a range of it."""
    with parts.sessions.begin() as session:  # ends before the bytes move
        size_bytes = blobs.find(session, digest).size_bytes
    return PlanResponse(request, plan_plain(digest, size_bytes), parts, headers=FOR_EVER)


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
    announced = _announced(request, parts.upload_limit_bytes)
    size_bytes = await run_in_threadpool(_known_size, parts, digest)
    if size_bytes is not None:
        await _pass_over(request, parts.upload_limit_bytes)
        return _answer(200, digest, size_bytes)
    size_bytes = await _receive(request, parts, digest, announced)
    new = await run_in_threadpool(_record, parts, digest, size_bytes)
    return _answer(201 if new else 200, digest, size_bytes)


def _announced(request: Request, limit_bytes: int) -> int | None:
    header = request.headers.get("content-length")
    if header is None:
        return None
    size_bytes = int(header)  # the server has refused what is no number
    if size_bytes > limit_bytes:
        raise errors.UploadTooLarge(size_bytes, limit_bytes)
    return size_bytes


def _known_size(parts: Parts, digest: Digest) -> int | None:
    """The size of a blob that needs no upload: known here, and in the store as it should be."""
    with parts.sessions.begin() as session:
        try:
            size_bytes = blobs.find(session, digest).size_bytes
        except errors.BlobNotFound:
            return None
    return size_bytes if parts.store.stat(digest) == size_bytes else None


def _record(parts: Parts, digest: Digest, size_bytes: int) -> bool:
    with parts.sessions.begin() as session:
        return blobs.record(session, digest, size_bytes)


def _answer(status: int, digest: Digest, size_bytes: int) -> Response:
    shown = BlobView(digest=digest, size_bytes=size_bytes).model_dump()
    return JSONResponse(shown, status, {"Location": f"/v1/blobs/{digest}"})


async def _receive(request: Request, parts: Parts, digest: Digest, announced: int | None) -> int:
    """Move the body into the store, a piece at a time; no thread waits for the caller's network."""
    limiter = parts.transfers
    with anyio.CancelScope(shield=True):  # or a writer made just then would never be closed
        writer = await to_thread.run_sync(parts.store.writer, digest, announced, limiter=limiter)
    try:
        async with aclosing(_pieces(request, announced, parts.upload_limit_bytes)) as pieces:
            async for piece in pieces:
                await to_thread.run_sync(writer.write, piece, limiter=limiter)
                observability.received_bytes.inc(len(piece))
        await to_thread.run_sync(writer.commit, limiter=limiter)
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(writer.__exit__, None, None, None, limiter=limiter)
    return writer.received_bytes


async def _pieces(
    request: Request, announced: int | None, limit_bytes: int
) -> AsyncGenerator[bytearray]:
    """The body in pieces of about 1 MiB: the network's own are too small for a thread each."""
    received = 0
    piece = bytearray()
    chunks = request.stream()
    while True:
        try:
            async with asyncio.timeout(STALLED_AFTER_S):
                chunk = await anext(chunks, None)
        except (ClientDisconnect, TimeoutError) as error:
            raise errors.BodyCutOff(announced or received + 1, received) from error
        if chunk is None:
            break
        received += len(chunk)
        if received > limit_bytes:
            raise errors.UploadTooLarge(received, limit_bytes)
        piece += chunk
        if len(piece) >= PIECE_BYTES:
            yield piece
            piece = bytearray()
    if piece:
        yield piece


async def _pass_over(request: Request, limit_bytes: int) -> None:
    """Read a body that is not needed, unless the caller waits to be asked for it.

    To answer and close while the caller still sends would often cost it the answer.
    """
    if "100-continue" in request.headers.get("expect", "").lower():
        return
    async with aclosing(_pieces(request, None, limit_bytes)) as pieces:
        async for _ in pieces:
            pass

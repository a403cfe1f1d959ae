"""Bodies of any size on their way into the store: a piece at a time, none held whole."""

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

import anyio
from anyio import to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from service import errors, observability
from service.blobs.store import BlobWriter
from service.names import Digest, parse_digest

PIECE_BYTES: Final = 2**20
STALLED_AFTER_S: Final = 60.0
"""An upload that sends nothing for so long is cut off."""

_SHA256: Final = re.compile(r"sha-256=:([^:]*):")


def announced(request: Request) -> int | None:
    """The size of the body, where the caller says it."""
    header = request.headers.get("content-length")
    return None if header is None else int(header)  # the server has refused what is no number


def stated_digest(request: Request) -> Digest | None:
    """The sha256 that the caller states of the body (RFC 9530); raises `BadRequest`."""
    for name in ("content-digest", "repr-digest"):
        if found := _SHA256.search(request.headers.get(name, "")):
            try:
                return parse_digest("sha256:" + base64.b64decode(found[1], validate=True).hex())
            except (binascii.Error, errors.BadDigest) as error:
                told = f"the header {name} holds no sha-256 as RFC 9530 writes it"
                raise errors.BadRequest(told) from error
    return None


async def receive(
    request: Request,
    open_writer: Callable[[], BlobWriter],
    *,
    limit_bytes: int,
    limiter: anyio.CapacityLimiter,
) -> int:
    """Move the body into the store; no thread waits for the caller's network.

    Answers its size in bytes. Raises `BodyCutOff`, `UploadTooLarge` and what the writer raises.
    """
    with anyio.CancelScope(shield=True):  # or a writer made just then would never be closed
        writer = await to_thread.run_sync(open_writer, limiter=limiter)
    try:
        async with aclosing(_pieces(request, limit_bytes)) as pieces:
            async for piece in pieces:
                await to_thread.run_sync(writer.write, piece, limiter=limiter)
                observability.received_bytes.inc(len(piece))
        await to_thread.run_sync(writer.commit, limiter=limiter)
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(writer.__exit__, None, None, None, limiter=limiter)
    return writer.received_bytes


async def pass_over(request: Request, limit_bytes: int) -> None:
    """Read a body that is not needed, unless the caller waits to be asked for it.

    To answer and close while the caller still sends would often cost it the answer.
    """
    if "100-continue" in request.headers.get("expect", "").lower():
        return
    async with aclosing(_pieces(request, limit_bytes)) as pieces:
        async for _ in pieces:
            pass


async def _pieces(request: Request, limit_bytes: int) -> AsyncGenerator[bytearray]:
    """The body in pieces of about 1 MiB: the network's own are too small for a thread each."""
    received = 0
    piece = bytearray()
    chunks = request.stream()
    while True:
        try:
            async with asyncio.timeout(STALLED_AFTER_S):
                chunk = await anext(chunks, None)
        except (ClientDisconnect, TimeoutError) as error:
            raise errors.BodyCutOff(announced(request) or received + 1, received) from error
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

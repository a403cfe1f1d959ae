"""Sending the bytes of a plan: 200, 206, 304 or 416, with ranges, validators and back-pressure.

The bytes are read about 1 MiB at a time by `os.pread` in a bounded set of threads (measured, in
throughput of nginx's sendfile: 0.66 with one reader, 0.79 with eight; Starlette's FileResponse 0.20
and 0.31; mmap stalls the event loop when the page cache is cold). While a client is slow, its
response holds its open files and one chunk: no thread, no database connection.

A length is announced and kept. Where the bytes cannot be read any more, or the client takes none
for `STALLED_AFTER_S`, the connection is cut: a short body must never look whole.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Final, Protocol

import anyio
import anyio.lowlevel
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service import errors, observability
from service.blobs.store import MIB, BlobReader, BlobStore
from service.http import problems
from service.http.protocol import ABORT
from service.http.ranges import has_it_already, range_applies, requested_range
from service.layout.splice import BlobRange, Literal, Plan, Segment
from service.names import ByteRange, Digest

log = observability.logger(__name__)

STALLED_AFTER_S: Final = 120.0
"""A client that takes not one chunk of 1 MiB for so long is cut off."""

_NOT_WITH_304: Final = ("content-type", "content-length", "content-disposition", "repr-digest")

Readers = Mapping[Digest, BlobReader]


class Transfers(Protocol):
    """Where the bytes are, and how many threads may read them at once."""

    @property
    def store(self) -> BlobStore:
        """The blobs that plans name."""

    @property
    def transfers(self) -> anyio.CapacityLimiter:
        """Apart from the threads that answer requests."""


class PlanResponse(Response):
    """Answers a GET or HEAD with the file that `plan` describes, or the part that was asked for."""

    def __init__(
        self,
        request: Request,
        plan: Plan,
        parts: Transfers,
        *,
        headers: Mapping[str, str] | None = None,
        media_type: str = "application/octet-stream",
        sha256: Digest | None = None,
        stalled_after_s: float = STALLED_AFTER_S,
    ) -> None:
        super().__init__(headers=headers, media_type=media_type)
        self._request = request
        self._plan = plan
        self._parts = parts
        self._stalled_after_s = stalled_after_s
        self.headers["ETag"] = f'"{plan.etag}"'
        self.headers["Accept-Ranges"] = "bytes"
        if known := sha256 or plan.sha256:
            self.headers["Repr-Digest"] = _repr_digest(known)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer that the request's method and headers call for."""
        asked = self._request.headers
        if has_it_already(asked.get("if-none-match"), self._plan.etag):
            await self._not_modified(scope, receive, send)
            return
        try:
            part = self._part()
        except errors.BadRange as error:
            await self._refuse(error, scope, receive, send)
            return
        self._announce(part)
        if self._request.method == "HEAD" or not part.size_bytes:
            await self._send_head(send)
            await send({"type": "http.response.body", "body": b""})
        else:
            await self._send_part(part, scope, receive, send)
        if self.background is not None:
            await self.background()

    # ── which answer ─────────────────────────────────────────────────────────────────────────

    def _part(self) -> ByteRange:
        """The bytes to send; a Range counts for GET alone (RFC 9110 section 14.2)."""
        asked, whole = self._request.headers, ByteRange(0, self._plan.size_bytes)
        if self._request.method != "GET":
            return whole
        if not range_applies(asked.get("if-range"), self._plan.etag):
            return whole
        found = requested_range(asked.get("range"), self._plan.size_bytes)
        if found is None:
            return whole
        self.status_code = 206
        return found

    def _announce(self, part: ByteRange) -> None:
        self.headers["Content-Length"] = str(part.size_bytes)
        if self.status_code == 206:  # noqa: PLR2004
            size_bytes = self._plan.size_bytes
            self.headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{size_bytes}"

    async def _not_modified(self, scope: Scope, receive: Receive, send: Send) -> None:
        kept = {name: text for name, text in self.headers.items() if name not in _NOT_WITH_304}
        await Response(status_code=304, headers=kept)(scope, receive, send)

    async def _refuse(
        self, error: errors.BadRange, scope: Scope, receive: Receive, send: Send
    ) -> None:
        answer = problems.answer(self._request, error)
        answer.headers["Content-Range"] = f"bytes */{self._plan.size_bytes}"
        answer.headers["Accept-Ranges"] = "bytes"
        await answer(scope, receive, send)

    # ── the bytes ────────────────────────────────────────────────────────────────────────────

    async def _send_head(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )

    async def _send_part(self, part: ByteRange, scope: Scope, receive: Receive, send: Send) -> None:
        segments = self._plan.cut(part.start, part.end)
        with ExitStack() as stack:
            # All of them before the first byte: what is missing now is a 404 and no broken
            # download, and what is deleted from now on stays readable.
            readers = await self._open(stack, segments)
            chunk_bytes = max((reader.chunk_bytes for reader in readers.values()), default=MIB)
            batches = _batches(segments, chunk_bytes)
            # Likewise the first bytes: a store that cannot read now is a 503, no broken download.
            first = await self._read(next(batches), readers)
            failure: Exception | None = None
            async with anyio.create_task_group() as group:

                async def leave_with_the_client() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    group.cancel_scope.cancel()

                group.start_soon(leave_with_the_client)
                try:
                    await self._send_head(send)
                    await self._send_body(first, batches, readers, part.size_bytes, send)
                except Exception as error:  # noqa: BLE001  # out of the task group as it is
                    failure = error
                group.cancel_scope.cancel()
        if failure is not None:
            await _cut_off(scope, failure)

    async def _open(self, stack: ExitStack, segments: Sequence[Segment]) -> Readers:
        digests = dict.fromkeys(s.digest for s in segments if isinstance(s, BlobRange))

        def opened() -> Readers:
            return {d: stack.enter_context(self._parts.store.open(d)) for d in digests}

        return await to_thread.run_sync(opened, limiter=self._parts.transfers)

    async def _read(self, batch: list[Segment], readers: Readers) -> bytes:
        return await to_thread.run_sync(_read, batch, readers, limiter=self._parts.transfers)

    async def _send_body(
        self,
        content: bytes,
        batches: Iterator[list[Segment]],
        readers: Readers,
        left: int,
        send: Send,
    ) -> None:
        """Send `content`, then the batches behind it: `left` bytes in all.

        The one place that moves bytes; `readers` have descriptors for a zero-copy way beside.
        """
        while True:
            for at in range(0, len(content), MIB):
                chunk = content if len(content) <= MIB else content[at : at + MIB]
                left -= len(chunk)
                with anyio.fail_after(self._stalled_after_s):
                    await send({"type": "http.response.body", "body": chunk, "more_body": left > 0})
                observability.sent_bytes.inc(len(chunk))
            batch = next(batches, None)
            if batch is None:
                return
            content = await self._read(batch, readers)


def _batches(segments: list[Segment], chunk_bytes: int) -> Iterator[list[Segment]]:
    """The segments in groups of at most `chunk_bytes`: one thread call reads many small ones."""
    batch: list[Segment] = []
    room = chunk_bytes
    for segment in segments:
        start = 0
        while start < segment.size_bytes:
            piece = segment.cut(start, min(segment.size_bytes, start + room))
            batch.append(piece)
            start += piece.size_bytes
            room -= piece.size_bytes
            if not room:
                yield batch
                batch, room = [], chunk_bytes
    if batch:
        yield batch


def _read(batch: list[Segment], readers: Readers) -> bytes:
    parts = [
        piece.content
        if isinstance(piece, Literal)
        else readers[piece.digest].read(piece.start, piece.end)
        for piece in batch
    ]
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _cut_off(scope: Scope, failure: Exception) -> None:
    """End the connection in mid-body, so that no client takes what it has for the whole."""
    abort = (scope.get("extensions") or {}).get(ABORT)
    if abort is None:
        # The server closes a connection whose response raises, once it has sent what it holds.
        raise failure
    log.warning("download cut off", path=scope["path"], reason=repr(failure))
    abort["abort"]()
    await anyio.lowlevel.checkpoint()  # lets the server notice before it asks for the rest


def _repr_digest(sha256: Digest) -> str:
    """RFC 9530, of the whole file whichever part is sent."""
    content = bytes.fromhex(sha256.removeprefix("sha256:"))
    return f"sha-256=:{base64.b64encode(content).decode('ascii')}:"

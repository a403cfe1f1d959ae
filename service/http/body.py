"""The bytes of a plan on their way to a client.

Ranges of local files that the page cache holds go to the socket without a copy, where the server
offers that (`protocol.py`). All else is read by `os.pread`, or from the object store, in a bounded
set of threads: what is not cached yet, what has no descriptor, what is small. So the event loop
never waits for a disk, and what a file has lost, or a disk cannot read, is noticed by a read.

Measured in throughput of nginx's sendfile with one reader and with eight: zero-copy 0.9 and 1.0,
pread 0.66 and 0.79, Starlette's FileResponse 0.20 and 0.31; mmap stalls the loop when the page
cache is cold. While a client is slow, its response holds its open files and one chunk: no thread,
no database connection.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Final, Protocol

import anyio
from anyio import to_thread
from starlette.types import Send

from service import observability
from service.blobs.cache import Source
from service.blobs.store import MIB, Readable
from service.http.protocol import ZERO_COPY
from service.layout.splice import BlobRange, Literal, Segment
from service.names import Digest

SENT_BYTES: Final = MIB
"""What one message holds; a client that takes less in time is cut off."""
UNCOPIED_BYTES: Final = 16 * MIB
"""What one message names of a file; the server itself watches whether any of it moves."""
SMALL_BYTES: Final = MIB // 16
"""Ranges below this are read together and sent as one."""

Readers = Mapping[Digest, Readable]


class Transfers(Protocol):
    """Where the bytes are, and how many threads may read them at once."""

    @property
    def source(self) -> Source:
        """The blobs that plans name."""

    @property
    def transfers(self) -> anyio.CapacityLimiter:
        """Apart from the threads that answer requests."""


class Body:
    """The bytes of some segments, opened and about to be sent."""

    def __init__(
        self,
        readers: Readers,
        segments: Sequence[Segment],
        limiter: anyio.CapacityLimiter,
        *,
        zero_copy: bool,
    ) -> None:
        self._readers = readers
        self._limiter = limiter
        self._zero_copy = zero_copy
        self._left = sum(segment.size_bytes for segment in segments)
        self._groups = _groups(segments)
        self._rest: BlobRange | None = None
        self._next: BlobRange | bytes | memoryview | None = None

    @classmethod
    async def open(
        cls, stack: ExitStack, segments: Sequence[Segment], parts: Transfers, *, zero_copy: bool
    ) -> "Body":
        """Open every blob and get the first bytes ready, so that what is amiss is told in time.

        What is missing now is a 404, and a store that cannot read now a 503: no broken download.
        What is deleted from now on stays readable. Raises what a store raises.
        """
        digests = dict.fromkeys(s.digest for s in segments if isinstance(s, BlobRange))

        def opened() -> Readers:
            return {digest: stack.enter_context(parts.source.open(digest)) for digest in digests}

        readers = await to_thread.run_sync(opened, limiter=parts.transfers)
        body = cls(readers, segments, parts.transfers, zero_copy=zero_copy)
        await body._advance()
        return body

    async def send(self, send: Send, stalled_after_s: float) -> None:
        """Send all of it; raises `TimeoutError` where the client takes nothing for so long."""
        while self._next is not None:
            if isinstance(self._next, BlobRange):
                await self._send_file(self._next, send, stalled_after_s)
            else:
                await self._send_bytes(self._next, send, stalled_after_s)
            await self._advance()

    async def _advance(self) -> None:
        """Get the next part ready: read, or found to lie in the page cache."""
        if self._rest is None:
            group = next(self._groups, None)
            if not isinstance(group, BlobRange):
                self._next = None if group is None else await self._read(group)
                return
            self._rest = group
        whole, reader = self._rest, self._readers[self._rest.digest]
        size = self._uncopied_bytes(reader, whole)
        if size:
            self._next = whole.cut(0, size)
        else:
            size = min(reader.chunk_bytes, whole.size_bytes)
            self._next = await self._read([whole.cut(0, size)])
        self._rest = whole.cut(size, whole.size_bytes) if size < whole.size_bytes else None

    async def _read(self, group: Sequence[Segment]) -> bytes | memoryview:
        return await to_thread.run_sync(_read, group, self._readers, limiter=self._limiter)

    def _uncopied_bytes(self, reader: Readable, part: BlobRange) -> int:
        """How much of the beginning of a range may go out without a copy."""
        descriptor = reader.fileno() if self._zero_copy else None
        if descriptor is None:
            return 0
        end = min(part.end, part.start + UNCOPIED_BYTES)
        return _cached_bytes(descriptor, part.start, end)

    async def _send_file(self, part: BlobRange, send: Send, stalled_after_s: float) -> None:
        self._left -= part.size_bytes
        message = {
            "type": ZERO_COPY,
            "file": self._readers[part.digest],
            "offset": part.start,
            "count": part.size_bytes,
            "more_body": self._left > 0,
            "stalled_after_s": stalled_after_s,
        }
        await send(message)
        observability.sent_bytes.inc(part.size_bytes)

    async def _send_bytes(
        self, content: bytes | memoryview, send: Send, stalled_after_s: float
    ) -> None:
        for at in range(0, len(content), SENT_BYTES):
            chunk = content if len(content) <= SENT_BYTES else content[at : at + SENT_BYTES]
            self._left -= len(chunk)
            message = {"type": "http.response.body", "body": chunk, "more_body": self._left > 0}
            with anyio.fail_after(stalled_after_s):
                await send(message)
            observability.sent_bytes.inc(len(chunk))


def _cached_bytes(descriptor: int, start: int, end: int) -> int:
    """How many bytes from `start` on the page cache holds; 0 where that cannot be told.

    Asked of one page in each MiB and of the last: what is gone between them lets the loop wait for
    the disk once.
    """
    if not hasattr(os, "RWF_NOWAIT"):
        return 0
    byte, at = bytearray(1), start
    try:
        while at < end and os.preadv(descriptor, [byte], at, os.RWF_NOWAIT):
            at = min(at + MIB, end)
        if os.preadv(descriptor, [byte], at - 1, os.RWF_NOWAIT):
            return at - start
    except OSError:  # not cached, or a file system that does not say
        pass
    return max(0, at - MIB - start)


def _groups(segments: Sequence[Segment]) -> Iterator[BlobRange | Sequence[Segment]]:
    """The segments in order: large ranges alone, small neighbours together."""
    group: list[Segment] = []
    size = 0
    for segment in segments:
        is_large = isinstance(segment, BlobRange) and segment.size_bytes >= SMALL_BYTES
        if group and (is_large or size + segment.size_bytes > SENT_BYTES):
            yield group
            group, size = [], 0
        if isinstance(segment, BlobRange) and is_large:
            yield segment
        else:
            group.append(segment)
            size += segment.size_bytes
    if group:
        yield group


def _read(group: Sequence[Segment], readers: Readers) -> bytes | memoryview:
    parts = [
        piece.content
        if isinstance(piece, Literal)
        else readers[piece.digest].read(piece.start, piece.end)
        for piece in group
    ]
    return parts[0] if len(parts) == 1 else b"".join(parts)

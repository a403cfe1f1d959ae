"""The bytes of a plan on their way to a client.

Ranges of local files that the page cache holds go to the socket without a copy, where the server
offers that (`protocol.py`). All else is read by `os.pread`, or from the object store, in a bounded
set of threads: what is not cached yet, what has no descriptor, what is small. So the event loop
never waits for a disk, and what a file has lost, or a disk cannot read, is noticed by a read.

Measured in throughput of nginx's sendfile with one reader and with eight: zero-copy 0.93 and 1.00,
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
from service.blobs.store import MIB, BlobReader
from service.http.protocol import ZERO_COPY
from service.layout.splice import BlobRange, Literal, Segment
from service.names import Digest

SENT_BYTES: Final = MIB
"""The most that one message to the server holds; a client that takes less in time is cut off."""
SMALL_BYTES: Final = MIB // 16
"""Ranges below this are read together and sent as one."""

Readers = Mapping[Digest, BlobReader]
Batch = Sequence[Segment]


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
        self._batches = _batches(segments, readers)
        self._next: tuple[Batch, bytes | None] | None = None

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
        """Send all of it; raises `TimeoutError` where the client takes no chunk for so long."""
        while self._next is not None:
            batch, content = self._next
            if content is None:
                await self._send_file(batch[0], send, stalled_after_s)
            for at in range(0, len(content or b""), SENT_BYTES):
                assert content is not None  # noqa: S101  # the range is empty without it
                chunk = content if len(content) <= SENT_BYTES else content[at : at + SENT_BYTES]
                await self._send_bytes(chunk, send, stalled_after_s)
            await self._advance()

    async def _advance(self) -> None:
        batch = next(self._batches, None)
        if batch is None:
            self._next = None
        elif self._goes_uncopied(batch):
            self._next = batch, None
        else:
            read = to_thread.run_sync(_read, batch, self._readers, limiter=self._limiter)
            self._next = batch, await read

    async def _send_file(self, segment: Segment, send: Send, stalled_after_s: float) -> None:
        assert isinstance(segment, BlobRange)  # noqa: S101  # `_goes_uncopied` has seen to it
        self._left -= segment.size_bytes
        message = {
            "type": ZERO_COPY,
            "file": self._readers[segment.digest],
            "offset": segment.start,
            "count": segment.size_bytes,
            "more_body": self._left > 0,
        }
        with anyio.fail_after(stalled_after_s):
            await send(message)
        observability.sent_bytes.inc(segment.size_bytes)

    async def _send_bytes(self, chunk: bytes, send: Send, stalled_after_s: float) -> None:
        self._left -= len(chunk)
        message = {"type": "http.response.body", "body": chunk, "more_body": self._left > 0}
        with anyio.fail_after(stalled_after_s):
            await send(message)
        observability.sent_bytes.inc(len(chunk))

    def _goes_uncopied(self, batch: Batch) -> bool:
        """Whether a batch is one range of a file whose pages are in memory."""
        segment = batch[0]
        if not self._zero_copy or len(batch) > 1 or isinstance(segment, Literal):
            return False
        descriptor = self._readers[segment.digest].fileno()
        return descriptor is not None and _is_cached(descriptor, segment)


def _is_cached(descriptor: int, part: BlobRange) -> bool:
    """Whether the page cache holds both ends of a range; not where that cannot be told.

    Pages between them may be gone: then the loop waits for the disk once, for a part of 1 MiB.
    """
    if not hasattr(os, "RWF_NOWAIT"):
        return False
    byte = bytearray(1)
    try:
        return all(
            os.preadv(descriptor, [byte], at, os.RWF_NOWAIT) for at in (part.start, part.end - 1)
        )
    except OSError:  # not cached, or a file system that does not say
        return False


def _batches(segments: Sequence[Segment], readers: Readers) -> Iterator[Batch]:
    """The segments in order: large ones chunk by chunk, small neighbours together."""
    batch: list[Segment] = []
    size = 0
    for segment in segments:
        if segment.size_bytes < SMALL_BYTES:
            batch.append(segment)
            size += segment.size_bytes
            if size < MIB - SMALL_BYTES:
                continue
        if batch:
            yield batch
            batch, size = [], 0
        if segment.size_bytes >= SMALL_BYTES:
            step = readers[segment.digest].chunk_bytes if isinstance(segment, BlobRange) else MIB
            for start in range(0, segment.size_bytes, step):
                yield [segment.cut(start, min(segment.size_bytes, start + step))]
    if batch:
        yield batch


def _read(batch: Batch, readers: Readers) -> bytes:
    parts = [
        piece.content
        if isinstance(piece, Literal)
        else readers[piece.digest].read(piece.start, piece.end)
        for piece in batch
    ]
    return parts[0] if len(parts) == 1 else b"".join(parts)

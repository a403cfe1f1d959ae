"""Hot blobs near the process that sends them: what was read from an object store before.

A stream that finds nothing here reads from the store by ranges at once; meanwhile the blob is
fetched a single time, held to its digest, and kept for the streams that follow. What only its
header was read of is not fetched. Small blobs (overlays, as a rule) are kept in memory, large ones
in a folder, from where they go out without a copy.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Protocol, Self

import structlog

from service import errors
from service.blobs.shelves import Shelf
from service.blobs.store import MIB, BlobReader, BlobStore, Readable
from service.names import Digest

log = structlog.stdlib.get_logger(__name__)

MEMORY_BYTES: Final = 256 * MIB
"""What the small blobs may take of a process's memory."""
SMALL_BYTES: Final = 64 * MIB
"""A blob up to this size is kept in memory."""
HOT_BYTES: Final = 8 * MIB
"""A blob is fetched once so much of it, or all of it, was read."""
AGAIN_AFTER_S: Final = 60.0
"""How long a blob is left alone that could not be fetched, or that another process fetches."""
_REMEMBERED: Final = 4096


class Source(Protocol):
    """Where blobs are read from: a store, or a cache before it."""

    def open(self, digest: Digest) -> Readable:
        """Open a blob for many reads; raises `BlobNotFound` and `StoreUnavailable`."""


class Cache:
    """A source before `store`; `small` and `large` shelves are looked at in this order.

    `damaged` hears of a blob that does not hash to its name; it may raise. Close the cache when
    nothing reads any more: fetches under way are given up.
    """

    def __init__(
        self,
        store: BlobStore,
        small: Shelf,
        large: Shelf | None,
        damaged: Callable[[Digest], None],
    ) -> None:
        self._store = store
        self._damaged = damaged
        self._small = small
        self._large = large
        self._heat: OrderedDict[Digest, int] = OrderedDict()
        self._resting: OrderedDict[Digest, float] = OrderedDict()
        self._wanted: set[Digest] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        # One each, so that a small blob never waits for a large one.
        self._small_fetcher = ThreadPoolExecutor(1, "small blobs")
        self._large_fetcher = ThreadPoolExecutor(1, "large blobs")

    def open(self, digest: Digest) -> Readable:
        """Open a blob where it is nearest; raises `BlobNotFound` and `StoreUnavailable`."""
        return self._near(digest) or _Warming(self, digest, self._store.open(digest))

    def close(self) -> None:
        """Give up the fetches under way, and wait for their end."""
        self._closing.set()
        for fetcher in (self._small_fetcher, self._large_fetcher):
            fetcher.shutdown(wait=True, cancel_futures=True)

    def _near(self, digest: Digest) -> Readable | None:
        for shelf in (self._small, self._large):
            if shelf is not None and (found := shelf.open(digest)) is not None:
                return found
        return None

    # ── what is worth keeping ────────────────────────────────────────────────────────────────

    def was_read(self, digest: Digest, read_bytes: int, size_bytes: int) -> None:
        """Note that so much of a blob was read past the cache, and fetch it once it is hot."""
        with self._lock:
            heat = self._heat[digest] = self._heat.pop(digest, 0) + read_bytes
            while len(self._heat) > _REMEMBERED:
                self._heat.popitem(last=False)
            rests = time.monotonic() < self._resting.get(digest, 0.0)
            if heat < min(HOT_BYTES, size_bytes) or digest in self._wanted or rests:
                return
            self._wanted.add(digest)
        self._fetch_soon(digest, size_bytes)

    def _fetch_soon(self, digest: Digest, size_bytes: int) -> None:
        is_small = size_bytes <= SMALL_BYTES
        shelf = self._small if is_small else self._large
        fetcher = self._small_fetcher if is_small else self._large_fetcher
        if shelf is not None and not self._closing.is_set():
            fetcher.submit(self._fetch, shelf, digest, size_bytes)

    def _fetch(self, shelf: Shelf, digest: Digest, size_bytes: int) -> None:
        filled = False
        try:
            filled = self._filled(shelf, digest, size_bytes)
        except _Closing:
            return
        except Exception as error:  # noqa: BLE001 - streams go on without the cache
            log.warning("blob not cached", digest=digest, reason=str(error))
        if filled:
            log.info("blob cached", digest=digest, size_bytes=size_bytes)
        with self._lock:
            self._wanted.discard(digest)
            self._heat.pop(digest, None)
            if not filled:
                self._resting[digest] = time.monotonic() + AGAIN_AFTER_S
                while len(self._resting) > _REMEMBERED:
                    self._resting.popitem(last=False)

    def _filled(self, shelf: Shelf, digest: Digest, size_bytes: int) -> bool:
        try:
            return shelf.fill(digest, size_bytes, self._content(digest))
        except (errors.DigestMismatch, errors.DamagedBlob) as error:
            log.error("a blob in the store is damaged", reason=str(error))  # noqa: TRY400
            self._damaged(digest)
            return False

    def _content(self, digest: Digest) -> Iterator[bytes]:
        for chunk in self._store.stream(digest):
            if self._closing.is_set():
                raise _Closing
            yield chunk


class _Closing(Exception):
    """The process is to end."""


class _Warming:
    """A blob of the store; what is read of it makes it hot."""

    def __init__(self, cache: Cache, digest: Digest, reader: BlobReader) -> None:
        self._cache = cache
        self._digest = digest
        self._reader = reader
        self.chunk_bytes = reader.chunk_bytes
        self.size_bytes = reader.size_bytes

    def read(self, start: int, end: int) -> bytes:
        """Exactly the bytes `[start, end)`."""
        content = self._reader.read(start, end)
        self._cache.was_read(self._digest, end - start, self.size_bytes)
        return content

    def fileno(self) -> int | None:
        """The store's own."""
        return self._reader.fileno()

    def close(self) -> None:
        """Let go of it."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

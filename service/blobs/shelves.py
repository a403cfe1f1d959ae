"""Where the cache keeps blobs: a folder for large ones, memory for small ones; both are bounded.

    FOLDER/
    ├── sha256/ab/ab12…     whole blobs, verified; the file's time says when one was last opened
    ├── tmp/UUID.part       blobs on their way
    └── filling/ab12…       locked by who fetches this blob, and as long as the blob will be

Any number of processes share a folder. Readers take no lock: a blob is renamed into place, and one
that is pushed out stays readable to whoever has it open. The lock of a process that was killed is
let go of by the kernel.
"""

import contextlib
import fcntl
import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from service import errors
from service.blobs.folder import FolderStore
from service.blobs.store import MIB, Readable
from service.names import Digest

USED_EVERY_S: Final = 60.0
"""How exact the time of last use is: not a write per download."""
ABANDONED_AFTER_S: Final = 600.0
"""A blob on its way that nobody wrote to for so long is removed."""


class Shelf(Protocol):
    """A bounded place for blobs."""

    def open(self, digest: Digest) -> Readable | None:
        """Open a blob that is here; None otherwise."""

    def fill(self, digest: Digest, size_bytes: int, content: Iterable[bytes]) -> bool:
        """Put a blob here in place of what was used least recently; False where another does.

        Walks `content` only where it is wanted. Raises `DigestMismatch`, `BodyCutOff`, `DiskFull`,
        `StoreUnavailable`, and what `content` raises; then nothing has changed.
        """


class FolderShelf:
    """Blobs in a folder of at most `limit_bytes`, those under way included."""

    def __init__(self, folder: Path, limit_bytes: int, *, reserve_bytes: int | None = None) -> None:
        self._store = FolderStore(folder, reserve_bytes=reserve_bytes)
        self._filling = folder / "filling"
        self._filling.mkdir(exist_ok=True)
        self._limit_bytes = limit_bytes

    def open(self, digest: Digest) -> Readable | None:
        """Open a blob that is here; it stays readable though it be pushed out meanwhile."""
        try:
            reader = self._store.open(digest)
        except (errors.BlobNotFound, errors.StoreUnavailable):
            return None
        descriptor = reader.fileno()
        assert descriptor is not None  # noqa: S101  # it was opened just now
        with contextlib.suppress(OSError):
            if time.time() - os.fstat(descriptor).st_mtime > USED_EVERY_S:
                os.utime(descriptor)
        return reader

    def fill(self, digest: Digest, size_bytes: int, content: Iterable[bytes]) -> bool:
        """Fetch a blob, once among all processes, after room was made for it."""
        with self._claimed(digest) as claim:
            if claim is None or self._store.stat(digest) == size_bytes:
                return False
            if not self._make_room(claim, size_bytes):
                return False
            with self._store.writer(digest, size_bytes) as writer:
                for chunk in content:
                    writer.write(chunk)
                writer.commit()
            return True

    @contextlib.contextmanager
    def _claimed(self, digest: Digest) -> Iterator[int | None]:
        """The right to fetch a blob, as the descriptor of its lock; None where another has it."""
        path = self._filling / digest.removeprefix("sha256:")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            if _lock(descriptor):
                try:
                    yield descriptor
                finally:
                    path.unlink(missing_ok=True)
            else:
                yield None
        finally:
            os.close(descriptor)

    def _make_room(self, claim: int, size_bytes: int) -> bool:
        """Push out what was used least recently, and reserve the room by the claim's length."""
        with self._alone():
            free = self._limit_bytes - self._under_way_bytes() - size_bytes
            if free < 0:
                return False
            blobs = sorted((self._used_at(d), d, size) for d, size in self._store.digests())
            stored = sum(size for _, _, size in blobs)
            for _, digest, size in blobs:
                if stored <= free:
                    break
                self._store.delete(digest)
                stored -= size
            os.truncate(claim, size_bytes)  # a hole: it takes no room itself
            self._store.sweep(ABANDONED_AFTER_S)
            return True

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with (self._filling / "lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _under_way_bytes(self) -> int:
        """The bytes that living processes have made room for; what the dead left is removed."""
        total = 0
        for entry in os.scandir(self._filling):
            if entry.name == "lock":
                continue
            with contextlib.suppress(FileNotFoundError), Path(entry.path).open("rb") as file:
                if _lock(file.fileno()):
                    Path(entry.path).unlink()
                else:
                    total += os.fstat(file.fileno()).st_size
        return total

    def _used_at(self, digest: Digest) -> float:
        path = self._store.local_path(digest)
        try:
            return path.stat().st_mtime if path else 0.0
        except FileNotFoundError:  # another process has pushed it out
            return 0.0


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class MemoryShelf:
    """Blobs in this process's memory, at most `limit_bytes` in all and for one more on its way."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._blobs: OrderedDict[Digest, memoryview] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, digest: Digest) -> Readable | None:
        """Open a blob that is here; it stays readable though it be pushed out meanwhile."""
        with self._lock:
            content = self._blobs.get(digest)
            if content is None:
                return None
            self._blobs.move_to_end(digest)
        return MemoryReader(digest, content)

    def fill(self, digest: Digest, size_bytes: int, content: Iterable[bytes]) -> bool:
        """Fetch a blob, and push out what was used least recently."""
        with self._lock:
            if digest in self._blobs or size_bytes > self._limit_bytes:
                return False
        whole, at = bytearray(size_bytes), 0  # chunks joined in the end would take it twice
        for chunk in content:
            whole[at : at + len(chunk)] = chunk
            at += len(chunk)
        actual = "sha256:" + hashlib.sha256(whole).hexdigest()
        if actual != digest:
            raise errors.DigestMismatch(digest, actual)
        with self._lock:
            self._blobs[digest] = memoryview(whole).toreadonly()
            while sum(map(len, self._blobs.values())) > self._limit_bytes:
                self._blobs.popitem(last=False)
        return True


class MemoryReader:
    """A blob in memory."""

    chunk_bytes = MIB

    def __init__(self, digest: Digest, content: memoryview) -> None:
        self.size_bytes = len(content)
        self._digest = digest
        self._content = content

    def read(self, start: int, end: int) -> memoryview:
        """Exactly the bytes `[start, end)`: a view, for copies would add up over the streams."""
        if end > self.size_bytes:
            raise errors.DamagedBlob(self._digest)
        return self._content[start:end]

    def fileno(self) -> int | None:
        """None: there is no file."""
        return None

    def close(self) -> None:
        """Nothing to let go of."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

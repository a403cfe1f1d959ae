"""Blobs in a folder on a local disk.

    ROOT/
    ├── sha256/ab/ab12…        one file a blob, named by its 64 hex digits
    └── tmp/UUID.part          uploads under way, on the same file system

A blob is written to tmp/, flushed to the disk and renamed into place, so it is whole or absent
whatever happens. A file there that is no regular file (a symbolic link, say) is no blob.
"""

import contextlib
import errno
import os
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from service import errors
from service.blobs.store import MIB, STALE_AFTER_S, BlobWriter, Content, chunks, copy_file
from service.names import Digest

# EFBIG: the file-size limit of the process (RLIMIT_FSIZE) or of the file system.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MAX_RESERVE_BYTES: Final = 1024 * MIB
_HEX_DIGITS: Final = 64


class FolderStore:
    """A blob store in a folder, made if need be.

    It leaves `reserve_bytes` of the disk free: by default 5 % of it, at most 1 GiB.
    """

    def __init__(self, root: Path, *, reserve_bytes: int | None = None) -> None:
        self._root = root.absolute()
        self._blobs = self._root / "sha256"
        self._tmp = self._root / "tmp"
        with self.unavailable_without_disk():
            self._blobs.mkdir(parents=True, exist_ok=True)
            self._tmp.mkdir(exist_ok=True)
            disk = os.statvfs(self._root)
        if reserve_bytes is None:
            reserve_bytes = min(disk.f_blocks * disk.f_frsize // 20, _MAX_RESERVE_BYTES)
        self._reserve_bytes = reserve_bytes
        self.sweep()

    def stat(self, digest: Digest) -> int | None:
        """The size of a blob in bytes; None where it is not stored."""
        with self.unavailable_without_disk():
            try:
                found = os.lstat(self._path(digest))
            except (FileNotFoundError, NotADirectoryError):
                self.check()
                return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def open(self, digest: Digest) -> "FolderReader":
        """Open a blob; it stays readable though it be deleted meanwhile."""
        if self.stat(digest) is None:
            raise errors.BlobNotFound(digest)
        try:
            descriptor = os.open(self._path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError as error:  # deleted since
            raise errors.BlobNotFound(digest) from error
        except OSError as error:
            raise errors.StoreUnavailable(error.strerror or "cannot open a blob") from error
        return FolderReader(digest, descriptor)

    def read(self, digest: Digest, start: int, end: int) -> bytes:
        """Exactly the bytes `[start, end)` of a blob."""
        with self.open(digest) as reader:
            return reader.read(start, end)

    def stream(self, digest: Digest, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes `[start, end)` of a blob in chunks of at most 1 MiB."""
        with self.open(digest) as reader:
            yield from chunks(reader, start, reader.size_bytes if end is None else end)

    def writer(self, digest: Digest, size_bytes: int | None = None) -> "FolderWriter":
        """Begin to store a blob."""
        self.check_room(size_bytes or 0)
        temporary = self._tmp / f"{uuid.uuid4().hex}.part"
        with self.unavailable_without_disk():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o640)
        return FolderWriter(self, digest, size_bytes, temporary, descriptor)

    def put_file(self, digest: Digest, path: Path) -> None:
        """Store a copy of a file."""
        copy_file(self.writer(digest, path.stat().st_size), path)

    def delete(self, digest: Digest) -> None:
        """Remove a blob, if it is stored."""
        with self.unavailable_without_disk():
            try:
                self._path(digest).unlink()
            except FileNotFoundError:
                self.check()

    def digests(self) -> Iterator[tuple[Digest, int]]:
        """Every stored blob and its size in bytes."""
        with self.unavailable_without_disk():
            folders = sorted(entry.path for entry in os.scandir(self._blobs) if entry.is_dir())
        for folder in folders:
            for entry in os.scandir(folder):
                if len(entry.name) == _HEX_DIGITS and entry.is_file(follow_symlinks=False):
                    yield (
                        Digest(f"sha256:{entry.name}"),
                        entry.stat(follow_symlinks=False).st_size,
                    )

    def check(self) -> None:
        """Raise `StoreUnavailable` unless the folder is there and can be written."""
        for folder in (self._blobs, self._tmp):
            if not folder.is_dir():
                raise errors.StoreUnavailable("its folder is gone")
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise errors.StoreUnavailable("its folder cannot be written")

    def sweep(self, older_than_s: float = STALE_AFTER_S) -> int:
        """Remove uploads under way that nobody wrote to for so long."""
        swept = 0
        with self.unavailable_without_disk():
            for entry in os.scandir(self._tmp):
                # An upload by another process may end, and its file go, at any moment.
                with contextlib.suppress(FileNotFoundError):
                    written = entry.stat(follow_symlinks=False).st_mtime
                    if entry.name.endswith(".part") and time.time() - written > older_than_s:
                        Path(entry.path).unlink()
                        swept += 1
        return swept

    def local_path(self, digest: Digest) -> Path | None:
        """The file of a blob, None where it is not stored."""
        return None if self.stat(digest) is None else self._path(digest)

    def describe(self) -> str:
        """The folder as a file URL."""
        return self._root.as_uri()

    # ── for the writer ───────────────────────────────────────────────────────────────────────

    def check_room(self, needed_bytes: int) -> None:
        """Raise `DiskFull` where `needed_bytes` more would go into the reserve."""
        free = self._free_bytes()
        if free - needed_bytes < self._reserve_bytes:
            raise errors.DiskFull(needed_bytes, free)

    def adopt(self, digest: Digest, temporary: Path) -> None:
        """Rename a finished upload into place, so that a power cut cannot take it back."""
        path = self._path(digest)
        if not path.parent.is_dir():
            path.parent.mkdir(exist_ok=True)
            _sync_folder(self._blobs)
        temporary.replace(path)
        _sync_folder(path.parent)

    @contextlib.contextmanager
    def unavailable_without_disk(self, needed_bytes: int = 0) -> Iterator[None]:
        """Tell a full disk from one that does not answer."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise errors.DiskFull(needed_bytes, self._free_bytes()) from error
            # The folder's path stays in the chained error: the message may reach any caller.
            raise errors.StoreUnavailable(error.strerror or "the disk failed") from error

    def _free_bytes(self) -> int:
        try:
            disk = os.statvfs(self._root)
        except OSError as error:
            raise errors.StoreUnavailable(error.strerror or "the disk failed") from error
        return disk.f_bavail * disk.f_frsize

    def _path(self, digest: Digest) -> Path:
        name = digest.removeprefix("sha256:")
        return self._blobs / name[:2] / name


class FolderReader:
    """A blob opened by file descriptor."""

    chunk_bytes = MIB

    def __init__(self, digest: Digest, descriptor: int) -> None:
        self._digest = digest
        self._descriptor: int | None = descriptor

    @property
    def size_bytes(self) -> int:
        """The size of the whole blob."""
        return os.fstat(self._open_descriptor()).st_size

    def read(self, start: int, end: int) -> bytes:
        """Exactly the bytes `[start, end)`."""
        descriptor = self._open_descriptor()
        parts = []
        while start < end:
            try:
                part = os.pread(descriptor, end - start, start)
            except OSError as error:
                raise errors.StoreUnavailable(error.strerror or "the disk failed") from error
            if not part:
                raise errors.DamagedBlob(self._digest)
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def fileno(self) -> int | None:
        """The descriptor, while it is open."""
        return self._descriptor

    def close(self) -> None:
        """Close the descriptor, once."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise ValueError("the reader is closed")
        return self._descriptor


class FolderWriter(BlobWriter):
    """An upload into tmp/."""

    def __init__(
        self,
        store: FolderStore,
        digest: Digest,
        size_bytes: int | None,
        temporary: Path,
        descriptor: int,
    ) -> None:
        super().__init__(digest, size_bytes)
        self._store_itself = store
        self._temporary = temporary
        self._descriptor = descriptor

    def _store(self, content: Content) -> None:
        view = memoryview(content).cast("B")
        self._store_itself.check_room(len(view))
        with self._store_itself.unavailable_without_disk(len(view)):
            while view:
                view = view[os.write(self._descriptor, view) :]

    def _publish(self) -> None:
        with self._store_itself.unavailable_without_disk(self.received_bytes):
            os.fsync(self._descriptor)
            self._store_itself.adopt(self.digest, self._temporary)
        os.close(self._descriptor)

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        with contextlib.suppress(OSError):
            self._temporary.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

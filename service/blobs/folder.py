"""Blobs in a folder on a local disk.

    ROOT/
    ├── sha256/ab/ab12…        one file a blob, named by its 64 hex digits
    ├── tmp/                   on the same file system
    │   ├── UUID.part          a blob on its way
    │   └── ID.upload ID.parts an upload in parts (`folder_staging.py`)
    └── scratch/               what jobs of workers make (`worker/scratch.py`), taken without a copy

A blob is written to tmp/, flushed to the disk and renamed into place, so it is whole or absent
whatever happens. A file there that is no regular file (a symbolic link, say) is no blob.
"""

import contextlib
import os
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from service import errors
from service.blobs.disk import Disk
from service.blobs.folder_staging import FolderStaging
from service.blobs.readers import FolderReader
from service.blobs.store import (
    STAGED_STALE_AFTER_S,
    STALE_AFTER_S,
    BlobWriter,
    Content,
    chunks,
    copy_file,
)
from service.names import Digest

_HEX_DIGITS: Final = 64
_MODE: Final = 0o640


class FolderStore:
    """A blob store in a folder, made if need be; it leaves `reserve_bytes` of the disk free."""

    def __init__(self, root: Path, *, reserve_bytes: int | None = None) -> None:
        self._disk = Disk(root, reserve_bytes)
        self.staging = FolderStaging(self._disk)
        self.sweep()

    @property
    def scratch(self) -> Path:
        """A folder on the same disk, made by whoever needs it."""
        return self._disk.root / "scratch"

    def stat(self, digest: Digest) -> int | None:
        """The size of a blob in bytes; None where it is not stored."""
        with self._disk.answering():
            try:
                found = os.lstat(self._disk.path(digest))
            except (FileNotFoundError, NotADirectoryError):
                self.check()
                return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def open(self, digest: Digest) -> FolderReader:
        """Open a blob; it stays readable though it be deleted meanwhile."""
        if self.stat(digest) is None:
            raise errors.BlobNotFound(digest)
        try:
            descriptor = os.open(
                self._disk.path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            )
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

    def writer(
        self,
        digest: Digest,
        size_bytes: int | None = None,
        *,
        replace: bool = False,  # noqa: ARG002  # a rename always replaces
    ) -> "FolderWriter":
        """Begin to store a blob."""
        self._disk.check_room(size_bytes or 0)
        temporary = self._disk.tmp / f"{uuid.uuid4().hex}.part"
        with self._disk.answering():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, _MODE)
        return FolderWriter(self._disk, digest, size_bytes, temporary, descriptor)

    def put_file(self, digest: Digest, path: Path) -> None:
        """Store a copy of a file."""
        copy_file(self.writer(digest, path.stat().st_size), path)

    def take_file(self, digest: Digest, path: Path) -> None:
        """Store a file by a second name for it, or else a copy of it."""
        self._disk.check_room(0)  # its bytes are there already, perhaps in the reserve
        temporary = self._disk.tmp / f"{uuid.uuid4().hex}.part"
        try:
            os.link(path, temporary, follow_symlinks=False)
        except OSError:  # another disk, or one without hard links
            self.put_file(digest, path)
            return
        with self._disk.answering():
            temporary.chmod(_MODE)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            self._disk.adopt(digest, temporary)

    def delete(self, digest: Digest) -> None:
        """Remove a blob, if it is stored."""
        with self._disk.answering():
            try:
                self._disk.path(digest).unlink()
            except FileNotFoundError:
                self.check()

    def digests(self) -> Iterator[tuple[Digest, int]]:
        """Every stored blob and its size in bytes."""
        with self._disk.answering():
            folders = sorted(entry.path for entry in os.scandir(self._disk.blobs) if entry.is_dir())
        for folder in folders:
            for entry in os.scandir(folder):
                if len(entry.name) == _HEX_DIGITS and entry.is_file(follow_symlinks=False):
                    yield (
                        Digest(f"sha256:{entry.name}"),
                        entry.stat(follow_symlinks=False).st_size,
                    )

    def check(self) -> None:
        """Raise `StoreUnavailable` unless the folder is there and can be written."""
        self._disk.check()

    def sweep(
        self,
        older_than_s: float = STALE_AFTER_S,
        *,
        staged_older_than_s: float = STAGED_STALE_AFTER_S,
    ) -> int:
        """Remove uploads under way that nobody wrote to for so long."""
        limits = {".part": older_than_s, ".upload": staged_older_than_s}
        limits[".parts"] = staged_older_than_s
        swept = 0
        with self._disk.answering():
            for entry in os.scandir(self._disk.tmp):
                # An upload by another process may end, and its file go, at any moment.
                with contextlib.suppress(FileNotFoundError):
                    written = entry.stat(follow_symlinks=False).st_mtime
                    ending = Path(entry.path).suffix
                    if ending in limits and time.time() - written > limits[ending]:
                        Path(entry.path).unlink()
                        swept += ending != ".parts"
        return swept

    def local_path(self, digest: Digest) -> Path | None:
        """The file of a blob, None where it is not stored."""
        return None if self.stat(digest) is None else self._disk.path(digest)

    def presign_get(
        self,
        digest: Digest,  # noqa: ARG002  # the protocol's, like the next three
        *,
        expires_s: int,  # noqa: ARG002
        filename: str | None = None,  # noqa: ARG002
        content_type: str | None = None,  # noqa: ARG002
    ) -> str | None:
        """None: the service hands its files out itself."""
        return None

    def describe(self) -> str:
        """The folder as a file URL."""
        return self._disk.root.as_uri()


class FolderWriter(BlobWriter):
    """An upload into tmp/."""

    def __init__(
        self,
        disk: Disk,
        digest: Digest,
        size_bytes: int | None,
        temporary: Path,
        descriptor: int,
    ) -> None:
        super().__init__(digest, size_bytes)
        self._disk = disk
        self._digest = digest
        self._temporary = temporary
        self._descriptor = descriptor

    def _store(self, content: Content) -> None:
        view = memoryview(content).cast("B")
        self._disk.check_room(len(view))
        with self._disk.answering(len(view)):
            while view:
                view = view[os.write(self._descriptor, view) :]

    def _publish(self) -> None:
        with self._disk.answering(self.received_bytes):
            os.fsync(self._descriptor)
            self._disk.adopt(self._digest, self._temporary)
        os.close(self._descriptor)

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        with contextlib.suppress(OSError):
            self._temporary.unlink()

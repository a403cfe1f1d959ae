"""Uploads in parts in a folder.

    tmp/ID.upload     the whole, a sparse file; each part is written where it belongs
    tmp/ID.parts      one byte a part: 1 once the part is on the disk, else 0

The file loses its write permission when it is sealed. Whoever writes asks for it, piece by piece,
under a shared lock of the file, and sealing takes that lock alone: a part that is still on its way
cannot change what was hashed.
"""

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from service import errors
from service.blobs.disk import Disk
from service.blobs.readers import FolderReader
from service.blobs.staging import Staged, check_complete, part_bytes, unheard
from service.blobs.streams import BlobWriter, Content
from service.names import Digest

_NEW: Final = os.O_CREAT | os.O_EXCL
_SAFE: Final = os.O_NOFOLLOW | os.O_CLOEXEC
_ARRIVED: Final = 1


class FolderStaging:
    """The uploads in parts of a folder store."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def begin(self, upload: str, digest: Digest, size_bytes: int) -> Staged:
        """Make the two files; the disk must have room for the whole now."""
        self._disk.check_room(size_bytes)
        staged = Staged(upload, digest, size_bytes, part_bytes(size_bytes), "")
        for path, length in (
            (self._journal(staged), staged.part_count),
            (self._whole(staged), size_bytes),
        ):
            with self._opened(staged, path, os.O_WRONLY | _NEW) as descriptor:
                os.ftruncate(descriptor, length)
        return staged

    def part_url(self, staged: Staged, number: int, expires_s: int) -> str | None:  # noqa: ARG002
        """None: parts come through the service."""
        staged.part_range(number)
        return None

    def part_writer(
        self, staged: Staged, number: int, digest: Digest | None = None
    ) -> "FolderPartWriter":
        """Begin to write a part; from now on it counts as missing until it is whole."""
        size_bytes = staged.part_size(number)
        self._disk.check_room(size_bytes)
        self.mark(staged, number, arrived=False)
        with self._disk.answering():
            try:
                descriptor = os.open(self._whole(staged), os.O_WRONLY | _SAFE)
            except FileNotFoundError:
                raise self._gone(staged) from None
            except PermissionError:  # sealed; who is root is told by `write`
                raise errors.UploadSealed(staged.id) from None
        return FolderPartWriter(self, staged, number, digest, descriptor)

    def arrived(self, staged: Staged) -> frozenset[int]:
        """The parts that the journal holds."""
        with self._opened(staged, self._journal(staged), os.O_RDONLY) as descriptor:
            marks = os.pread(descriptor, staged.part_count, 0)
        return frozenset(number for number, mark in enumerate(marks, 1) if mark == _ARRIVED)

    def seal(self, staged: Staged) -> None:
        """Take the write permission away, once no writer is in the middle of a piece."""
        with self._opened(staged, self._whole(staged), os.O_RDONLY) as descriptor:
            with _locked(descriptor, fcntl.LOCK_EX):
                check_complete(staged, self.arrived(staged))
                os.fchmod(descriptor, 0o440)
            os.fsync(descriptor)

    def open(self, staged: Staged) -> FolderReader:
        """Open the whole."""
        with self._disk.answering():
            try:
                descriptor = os.open(self._whole(staged), os.O_RDONLY | _SAFE)
            except FileNotFoundError:
                raise self._gone(staged) from None
        return FolderReader(staged.digest, descriptor)

    def publish(self, staged: Staged, told: Callable[[int], None] = unheard) -> None:  # noqa: ARG002
        """Rename the whole into its digest's place."""
        with self._disk.answering(staged.size_bytes):
            try:
                self._disk.adopt(staged.digest, self._whole(staged))
            except FileNotFoundError:
                raise self._gone(staged) from None
            self._journal(staged).unlink(missing_ok=True)

    def discard(self, staged: Staged) -> None:
        """Remove both files."""
        with self._disk.answering():
            self._whole(staged).unlink(missing_ok=True)
            self._journal(staged).unlink(missing_ok=True)

    # ── for the writer ───────────────────────────────────────────────────────────────────────

    def write(self, staged: Staged, descriptor: int, content: Content, at: int) -> None:
        """Write a piece of a part; raises `UploadSealed` and `DiskFull`."""
        view = memoryview(content).cast("B")
        self._disk.check_room(len(view))
        with (
            self._disk.answering(len(view)),
            _locked(descriptor, fcntl.LOCK_SH),
        ):
            _check_unsealed(staged, descriptor)
            while view:
                written = os.pwrite(descriptor, view, at)
                view, at = view[written:], at + written

    def mark(self, staged: Staged, number: int, *, arrived: bool) -> None:
        """Note in the journal whether a part is there; raises `UploadSealed`."""
        with (
            self._opened(staged, self._whole(staged), os.O_RDONLY) as whole,
            _locked(whole, fcntl.LOCK_SH),
        ):
            _check_unsealed(staged, whole)
            if arrived:
                os.fdatasync(whole)
            with self._opened(staged, self._journal(staged), os.O_WRONLY) as journal:
                os.pwrite(journal, bytes([_ARRIVED if arrived else 0]), number - 1)
                os.fdatasync(journal)

    @contextlib.contextmanager
    def _opened(self, staged: Staged, path: Path, flags: int) -> Iterator[int]:
        with self._disk.answering(staged.size_bytes):
            try:
                descriptor = os.open(path, flags | _SAFE, 0o640)
            except FileNotFoundError:
                raise self._gone(staged) from None
            try:
                yield descriptor
            finally:
                os.close(descriptor)

    def _gone(self, staged: Staged) -> errors.UploadEnded:
        self._disk.check()  # the whole folder may be away
        return errors.UploadEnded(staged.id, "is not in the store any more")

    def _whole(self, staged: Staged) -> Path:
        return self._disk.tmp / f"{staged.id}.upload"

    def _journal(self, staged: Staged) -> Path:
        return self._disk.tmp / f"{staged.id}.parts"


class FolderPartWriter(BlobWriter):
    """A part on its way into the whole."""

    def __init__(
        self,
        staging: FolderStaging,
        staged: Staged,
        number: int,
        digest: Digest | None,
        descriptor: int,
    ) -> None:
        super().__init__(digest, staged.part_size(number))
        self._staging = staging
        self._staged = staged
        self._number = number
        self._at, _ = staged.part_range(number)
        self._descriptor = descriptor

    def _store(self, content: Content) -> None:
        self._staging.write(self._staged, self._descriptor, content, self._at)
        self._at += memoryview(content).nbytes

    def _publish(self) -> None:
        self._staging.mark(self._staged, self._number, arrived=True)
        os.close(self._descriptor)

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


@contextlib.contextmanager
def _locked(descriptor: int, kind: int) -> Iterator[None]:
    fcntl.flock(descriptor, kind)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _check_unsealed(staged: Staged, descriptor: int) -> None:
    if not os.fstat(descriptor).st_mode & stat.S_IWUSR:
        raise errors.UploadSealed(staged.id)

"""The folder of a store on a local disk: where things lie in it, how much room is left.

ROOT/sha256/ab/ab12…      a blob
ROOT/tmp/                 what is under way, on the same file system
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from service import errors
from service.blobs.streams import MIB
from service.names import Digest

# EFBIG: the file-size limit of the process (RLIMIT_FSIZE) or of the file system.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MAX_RESERVE_BYTES: Final = 1024 * MIB


class Disk:
    """A folder, made if need be; writers leave `reserve_bytes` of its disk free.

    By default these are 5 % of it, at most 1 GiB.
    """

    def __init__(self, root: Path, reserve_bytes: int | None = None) -> None:
        self.root = root.absolute()
        self.blobs = self.root / "sha256"
        self.tmp = self.root / "tmp"
        with self.answering():
            self.blobs.mkdir(parents=True, exist_ok=True)
            self.tmp.mkdir(exist_ok=True)
            disk = os.statvfs(self.root)
        if reserve_bytes is None:
            reserve_bytes = min(disk.f_blocks * disk.f_frsize // 20, _MAX_RESERVE_BYTES)
        self.reserve_bytes = reserve_bytes

    def path(self, digest: Digest) -> Path:
        """Where a blob lies, if it is there."""
        name = digest.removeprefix("sha256:")
        return self.blobs / name[:2] / name

    def check(self) -> None:
        """Raise `StoreUnavailable` unless the folder is there and can be written."""
        for folder in (self.blobs, self.tmp):
            if not folder.is_dir():
                raise errors.StoreUnavailable("its folder is gone")
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise errors.StoreUnavailable("its folder cannot be written")

    def check_room(self, needed_bytes: int) -> None:
        """Raise `DiskFull` where `needed_bytes` more would go into the reserve."""
        free = self._free_bytes()
        if free - needed_bytes < self.reserve_bytes:
            raise errors.DiskFull(needed_bytes, free)

    def adopt(self, digest: Digest, temporary: Path) -> None:
        """Rename a finished upload into place, so that a power cut cannot take it back."""
        path = self.path(digest)
        if not path.parent.is_dir():
            path.parent.mkdir(exist_ok=True)
            _sync_folder(self.blobs)
        temporary.replace(path)
        _sync_folder(path.parent)

    @contextlib.contextmanager
    def answering(self, needed_bytes: int = 0) -> Iterator[None]:
        """Tell a full disk (`DiskFull`) from one that does not answer (`StoreUnavailable`)."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise errors.DiskFull(needed_bytes, self._free_bytes()) from error
            # The folder's path stays in the chained error: the message may reach any caller.
            raise errors.StoreUnavailable(error.strerror or "the disk failed") from error

    def _free_bytes(self) -> int:
        try:
            disk = os.statvfs(self.root)
        except OSError as error:
            raise errors.StoreUnavailable(error.strerror or "the disk failed") from error
        return disk.f_bavail * disk.f_frsize


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

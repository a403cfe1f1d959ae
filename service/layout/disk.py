"""Changes to a disk, one method a step, so that a test can stop after any of them.

A file is complete under its final name or absent: it is written beside, synced, renamed, and the
folder is synced after that.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from service import errors

CHUNK_BYTES = 1 << 20


class Disk:
    """Writes, syncs, renames and removes; `step` is called before each, with its name and path."""

    chunk_bytes = CHUNK_BYTES

    def step(self, what: str, path: Path) -> None:
        """Nothing; a test raises or kills here."""

    def make_folder(self, path: Path) -> None:
        """Make `path` and its parents, each known to its parent on disk."""
        if path.is_dir():
            return
        self.make_folder(path.parent)
        self.step("make", path)
        path.mkdir(exist_ok=True)
        self.sync_folder(path.parent)

    def write_file(self, path: Path, chunks: Iterable[bytes]) -> None:
        """Write a whole file: `path` holds either all of it or what it held before."""
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            for chunk in chunks:
                self.write(file, part, chunk)
            self.sync(file, part)
        self.publish(part, path)

    def write(self, file: BinaryIO, path: Path, content: bytes) -> None:
        """Write `content` where `file` stands, in pieces of at most `chunk_bytes`."""
        view = memoryview(content)
        while view:
            self.step("write", path)
            # An unbuffered file may take less than it was given.
            view = view[file.write(view[: self.chunk_bytes]) :]

    def sync(self, file: BinaryIO, path: Path) -> None:
        """Let what was written reach the disk."""
        self.step("sync", path)
        file.flush()
        self.reach_disk(file.fileno())

    def publish(self, part: Path, path: Path) -> None:
        """Give a finished, synced file its name."""
        self.step("publish", path)
        part.replace(path)
        self.sync_folder(path.parent)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""
        self.step("remove", path)
        path.unlink(missing_ok=True)
        self.sync_folder(path.parent)

    def remove_tree(self, folder: Path) -> None:
        """Remove a folder of our own and all in it; never follows a link."""
        if not folder.is_dir() or folder.is_symlink():
            return
        for child in sorted(folder.iterdir()):
            if child.is_dir() and not child.is_symlink():
                self.remove_tree(child)
            else:
                self.remove(child)
        self.step("remove", folder)
        folder.rmdir()
        self.sync_folder(folder.parent)

    def sync_folder(self, folder: Path) -> None:
        """Let new, renamed and removed names in `folder` reach the disk."""
        if sys.platform == "win32":
            return  # a folder cannot be opened there; NTFS journals its names itself
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.reach_disk(descriptor)
        finally:
            os.close(descriptor)

    def reach_disk(self, descriptor: int) -> None:
        """Wait until a file or folder is on the disk; a test that kills processes need not."""
        os.fsync(descriptor)


DISK = Disk()


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold `path`, a file or folder, against other runs; the lock ends with the process.

    Raises `FileBusy`.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl  # noqa: PLC0415 - not there on Windows

    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise errors.FileBusy(str(path)) from error
        yield
    finally:
        with suppress(OSError):
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class RangeReader:
    """Reads byte ranges `[start, end)` of something open; threads may share it.

    `read` answers the bytes or raises what is wrong; `fileno` names a file's descriptor, from which
    a buffer is filled with no copy on the way, and is None where there is no local file.
    """

    read: Callable[[int, int], bytes]
    fileno: Callable[[], int | None]

    def __call__(self, start: int, end: int) -> bytes:
        """Exactly the bytes `[start, end)`."""
        return self.read(start, end)

    def fill(self, buffer: memoryview, start: int) -> None:
        """Read as many bytes as `buffer` holds; raises what `read` raises."""
        descriptor = self.fileno() if hasattr(os, "preadv") else None
        done = 0
        while descriptor is not None and done < len(buffer):
            with suppress(OSError):  # `read` meets it, too, and says what it means
                if count := os.preadv(descriptor, [buffer[done:]], start + done):
                    done += count
                    continue
            break
        if done < len(buffer):
            buffer[done:] = self.read(start + done, start + len(buffer))


def reader(file: BinaryIO) -> RangeReader:
    """Reads of byte ranges of an open file; raise `BodyCutOff` if it ends before."""
    position = Lock()

    def read(start: int, end: int) -> bytes:
        with position:
            return b"".join(read_chunks(file, start, end))

    return RangeReader(read, file.fileno)


def read_chunks(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    """The bytes `[start, end)` of `file`, chunk by chunk; raises `BodyCutOff` if it ends before."""
    file.seek(start)
    while start < end:
        chunk = file.read(min(CHUNK_BYTES, end - start))
        if not chunk:
            raise errors.BodyCutOff(expected_bytes=end, received_bytes=start)
        start += len(chunk)
        yield chunk

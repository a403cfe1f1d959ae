"""What every blob store can do: keep bytes under their digest, whole or not at all.

A blob appears in one step, after its bytes were counted and hashed; until then nothing shows, and
an upload that fails leaves nothing. Every method may raise `StoreUnavailable`. All of it blocks:
call it from a thread. One suite, `tests/blobs/test_conformance.py`, holds for every store.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from service import errors
from service.names import Digest

MIB: Final = 2**20
STALE_AFTER_S: Final = 24 * 3600
"""What an interrupted upload left behind is swept once it is this old."""

Content = bytes | bytearray | memoryview


class BlobReader(Protocol):
    """A blob opened for reading."""

    @property
    def chunk_bytes(self) -> int:
        """How many bytes one read should ask for: 1 MiB of a file, more across a network."""

    def read(self, start: int, end: int) -> bytes:
        """Exactly the bytes `[start, end)`; raises `DamagedBlob` where the blob ends before."""

    def fileno(self) -> int | None:
        """The file descriptor, for zero-copy sending; None where there is no local file."""

    def close(self) -> None:
        """Let go of it; a second time does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class BlobStore(Protocol):
    """Bytes named by digest."""

    def stat(self, digest: Digest) -> int | None:
        """The size of a blob in bytes; None where it is not stored."""

    def open(self, digest: Digest) -> BlobReader:
        """Open a blob for many reads; raises `BlobNotFound`.

        In a folder it stays readable to the end, though it be deleted meanwhile.
        """

    def read(self, digest: Digest, start: int, end: int) -> bytes:
        """Exactly the bytes `[start, end)`.

        Raises `BlobNotFound`, and `DamagedBlob` where the blob ends before `end`.
        """

    def stream(self, digest: Digest, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes `[start, end)` in chunks of at most 1 MiB, to its end without `end`.

        Raises as `read` does, from the first chunk on.
        """

    def writer(self, digest: Digest, size_bytes: int | None = None) -> "BlobWriter":
        """Begin to store a blob, of `size_bytes` where that was announced.

        Raises `DiskFull`, here and while writing. A blob that is stored already may be sent again.
        """

    def put_file(self, digest: Digest, path: Path) -> None:
        """Store a copy of a file; raises `DigestMismatch` and `DiskFull`."""

    def delete(self, digest: Digest) -> None:
        """Remove a blob; one that is not stored is no error."""

    def digests(self) -> Iterator[tuple[Digest, int]]:
        """Every stored blob and its size in bytes, in no order."""

    def check(self) -> None:
        """Raise `StoreUnavailable` unless blobs can be read and written."""

    def sweep(self, older_than_s: float = STALE_AFTER_S) -> int:
        """Remove what interrupted uploads left behind, and answer how many there were."""

    def local_path(self, digest: Digest) -> Path | None:
        """The file of a stored blob where the store is a folder, else None."""

    def describe(self) -> str:
        """Where the blobs are, as a URL without secrets."""


class BlobWriter(ABC):
    """Counts and hashes what is written, and lets the store publish only what its name names.

        with store.writer(digest, size_bytes) as writer:
            for chunk in chunks:
                writer.write(chunk)
            writer.commit()

    Leaving the block without `commit`, or after an error, leaves nothing behind.
    """

    def __init__(self, digest: Digest, size_bytes: int | None) -> None:
        self.digest = digest
        self.size_bytes = size_bytes
        self.received_bytes = 0
        self._sha256 = hashlib.sha256()
        self._ended = False

    def write(self, content: Content) -> None:
        """Take the next bytes; raises `DiskFull`, and `BodyTooLong` beyond what was announced."""
        size = memoryview(content).nbytes
        if self.size_bytes is not None and self.received_bytes + size > self.size_bytes:
            raise errors.BodyTooLong(self.size_bytes)
        self._sha256.update(content)
        self.received_bytes += size
        self._store(content)

    def commit(self) -> None:
        """Make the blob visible, durably.

        Raises `DigestMismatch`, `DiskFull`, and `BodyCutOff` where fewer bytes came than announced.
        """
        if self.size_bytes is not None and self.received_bytes < self.size_bytes:
            raise errors.BodyCutOff(self.size_bytes, self.received_bytes)
        actual = "sha256:" + self._sha256.hexdigest()
        if actual != self.digest:
            raise errors.DigestMismatch(self.digest, actual)
        self._publish()
        self._ended = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._ended:
            self._ended = True
            self._discard()

    @abstractmethod
    def _store(self, content: Content) -> None:
        """Keep the next bytes out of sight."""

    @abstractmethod
    def _publish(self) -> None:
        """Make what was kept visible under its digest, in one step."""

    @abstractmethod
    def _discard(self) -> None:
        """Remove what was kept; never raises."""


def chunks(reader: BlobReader, start: int, end: int) -> Iterator[bytes]:
    """Read `[start, end)` and hand it out in chunks of at most 1 MiB."""
    for at in range(start, end, reader.chunk_bytes):
        piece = reader.read(at, min(end, at + reader.chunk_bytes))
        for offset in range(0, len(piece), MIB):
            yield piece[offset : offset + MIB]


def copy_file(writer: BlobWriter, path: Path) -> None:
    """Write a file to `writer` and commit it."""
    with writer, path.open("rb") as file:
        while chunk := file.read(MIB):
            writer.write(chunk)
        writer.commit()

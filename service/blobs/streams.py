"""Bytes on their way out of a store and into one."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from service import errors
from service.names import Digest

MIB: Final = 2**20

Content = bytes | bytearray | memoryview


class Readable(Protocol):
    """A blob opened for reading, in a store or nearer."""

    @property
    def size_bytes(self) -> int:
        """The size of the whole blob."""

    @property
    def chunk_bytes(self) -> int:
        """How many bytes one read should ask for: 1 MiB of a file, more across a network."""

    def read(self, start: int, end: int) -> bytes | memoryview:
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


class BlobReader(Readable, Protocol):
    """A blob of a store opened for reading."""

    def read(self, start: int, end: int) -> bytes:
        """Exactly the bytes `[start, end)`; raises `DamagedBlob` where the blob ends before."""


class BlobWriter(ABC):
    """Counts and hashes what is written, and lets the store publish only what its name names.

        with store.writer(digest, size_bytes) as writer:
            for chunk in chunks:
                writer.write(chunk)
            writer.commit()

    Leaving the block without `commit`, or after an error, leaves nothing behind. Without a digest,
    as a part of an upload may come, the bytes are counted alone.
    """

    def __init__(self, digest: Digest | None, size_bytes: int | None) -> None:
        self.size_bytes = size_bytes
        self.received_bytes = 0
        self._expected = digest
        self._sha256 = hashlib.sha256()
        self._ended = False

    def write(self, content: Content) -> None:
        """Take the next bytes; raises `DiskFull`, and `BodyTooLong` beyond what was announced."""
        size = memoryview(content).nbytes
        if self.size_bytes is not None and self.received_bytes + size > self.size_bytes:
            raise errors.BodyTooLong(self.size_bytes)
        if self._expected is not None:
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
        if self._expected not in {None, actual}:
            raise errors.DigestMismatch(str(self._expected), actual)
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

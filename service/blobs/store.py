"""What every blob store can do: keep bytes under their digest, whole or not at all.

A blob appears in one step, after its bytes were counted and hashed; until then nothing shows, and
an upload that fails leaves nothing. Every method may raise `StoreUnavailable`. All of it blocks:
call it from a thread. One suite, `tests/blobs/test_conformance.py`, holds for every store.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from service.blobs.staging import Staging
from service.blobs.streams import (
    MIB,
    BlobReader,
    BlobWriter,
    Content,
    Readable,
    chunks,
    copy_file,
)
from service.names import Digest

STALE_AFTER_S: Final = 24 * 3600
"""What an interrupted upload left behind is swept once it is this old."""
STAGED_STALE_AFTER_S: Final = 8 * 24 * 3600
"""So is an upload in parts: a day after its last possible use (`registry/uploads.py`)."""

__all__ = [
    "MIB",
    "STAGED_STALE_AFTER_S",
    "STALE_AFTER_S",
    "BlobReader",
    "BlobStore",
    "BlobWriter",
    "Content",
    "Readable",
    "chunks",
    "copy_file",
]


class BlobStore(Protocol):
    """Bytes named by digest."""

    @property
    def staging(self) -> Staging:
        """Where uploads in parts are kept until they are published."""

    @property
    def scratch(self) -> Path | None:
        """A folder on the store's own disk: what is made there is taken without a copy.

        None where the store has no disk here.
        """

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

    def writer(
        self, digest: Digest, size_bytes: int | None = None, *, replace: bool = False
    ) -> BlobWriter:
        """Begin to store a blob, of `size_bytes` where that was announced.

        A blob that is stored already may be sent again; it is written anew for sure only with
        `replace`, as where it was found damaged. Raises `DiskFull`, here and while writing.
        """

    def put_file(self, digest: Digest, path: Path) -> None:
        """Store a copy of a file, in place of what there was.

        Raises `DigestMismatch` and `DiskFull`.
        """

    def take_file(self, digest: Digest, path: Path) -> None:
        """Store a file that its maker has hashed already and that nobody changes any more.

        Without a copy where it lies on the store's own disk. Raises `DiskFull`.
        """

    def delete(self, digest: Digest) -> None:
        """Remove a blob; one that is not stored is no error."""

    def digests(self) -> Iterator[tuple[Digest, int]]:
        """Every stored blob and its size in bytes, in no order."""

    def check(self) -> None:
        """Raise `StoreUnavailable` unless blobs can be read and written."""

    def sweep(
        self,
        older_than_s: float = STALE_AFTER_S,
        *,
        staged_older_than_s: float = STAGED_STALE_AFTER_S,
    ) -> int:
        """Remove what interrupted uploads left behind, and answer how many there were."""

    def local_path(self, digest: Digest) -> Path | None:
        """The file of a stored blob where the store is a folder, else None."""

    def presign_get(
        self,
        digest: Digest,
        *,
        expires_s: int,
        filename: str | None = None,
        content_type: str | None = None,
    ) -> str | None:
        """A URL that gives a blob straight from the store for so long, at most seven days.

        None where the service is to hand it out itself. Nobody is asked whether it is there.
        """

    def describe(self) -> str:
        """Where the blobs are, as a URL without secrets."""

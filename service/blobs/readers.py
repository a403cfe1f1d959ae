"""A blob opened for many reads: a file by its descriptor, an object by requests."""

import os
from types import TracebackType
from typing import Final, Self

from service import errors
from service.blobs.bucket import Bucket, Object
from service.blobs.streams import MIB
from service.names import Digest

_READ_BYTES: Final = 4 * MIB


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


class S3Reader:
    """An object read by ranges, each a request of its own."""

    chunk_bytes = _READ_BYTES

    def __init__(self, bucket: Bucket, at: Object, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._bucket = bucket
        self._at = at

    @classmethod
    def of(cls, bucket: Bucket, at: Object) -> Self:
        """Open an object; raises `BlobNotFound`."""
        if (size_bytes := bucket.size(at)) is None:
            raise errors.BlobNotFound(at.digest)
        return cls(bucket, at, size_bytes)

    def read(self, start: int, end: int) -> bytes:
        """Exactly the bytes `[start, end)`."""
        return self._bucket.read(self._at, start, end) if start < end else b""

    def fileno(self) -> int | None:
        """None: there is no local file."""
        return None

    def close(self) -> None:
        """Nothing is held between two reads."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

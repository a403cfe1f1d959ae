"""Bytes that are kept, and the store they are kept in."""

from dataclasses import dataclass

from service.errors.tree import Broken, Invalid, NotFound, StorageFull, Unavailable


@dataclass(eq=False)
class BlobNotFound(NotFound):
    """No blob of this digest is stored."""

    digest: str
    slug = "blob-not-found"

    def __str__(self) -> str:
        return f"no blob {self.digest}; upload it with PUT /v1/blobs/{self.digest}"


@dataclass(eq=False)
class BadRange(Invalid):
    """A byte range lies outside the file."""

    size_bytes: int
    slug = "bad-range"

    def __str__(self) -> str:
        return f"the range lies outside the file's {self.size_bytes} bytes"


@dataclass(eq=False)
class DamagedBlob(Broken):
    """A stored blob no longer hashes to its name."""

    digest: str
    slug = "damaged-blob"

    def __str__(self) -> str:
        return f"blob {self.digest} is damaged in the store; upload it again"


@dataclass(eq=False)
class DamagedBlobs(Broken):
    """An audit found stored blobs that do not hash to their names."""

    digests: list[str]
    slug = "damaged-blobs"

    def __str__(self) -> str:
        shown = ", ".join(self.digests[:10])
        more = f" and {len(self.digests) - 10} more" if len(self.digests) > 10 else ""  # noqa: PLR2004
        return (
            f"{len(self.digests)} damaged: {shown}{more}; what needs them is refused until each is "
            "uploaded again"
        )


@dataclass(eq=False)
class DiskFull(StorageFull):
    """The blob store has no room left above its reserve."""

    needed_bytes: int
    free_bytes: int
    slug = "disk-full"

    def __str__(self) -> str:
        return (
            f"no room for {self.needed_bytes} more bytes: {self.free_bytes} are free and a reserve "
            "is kept; nothing was kept, free space on the server and send them again"
        )


@dataclass(eq=False)
class BadStoreUrl(Invalid):
    """The URL of a blob store is `s3://bucket/prefix`, `file:///folder` or a folder's path."""

    url: str
    slug = "bad-store-url"

    def __str__(self) -> str:
        return f"{self.url!r} is no blob store; write s3://bucket/prefix or the path of a folder"


@dataclass(eq=False)
class StoreUnavailable(Unavailable):
    """The blob store does not answer."""

    reason: str
    slug = "store-unavailable"

    def __str__(self) -> str:
        return f"the blob store does not answer ({self.reason}); try again shortly"

"""Blobs in a bucket of an S3-compatible object store.

    BUCKET/PREFIX/sha256/ab/ab12…        one object a blob, named by its 64 hex digits
    BUCKET/PREFIX/uploads/ID             an upload in parts, until it is published (`s3_staging.py`)

An object appears with the last request of its upload, and that one is sent only after the bytes
were counted and hashed here: up to 16 MiB one PUT, beyond that a multipart upload, aborted if it
comes to nothing. Either asks that no object of the name is there (`If-None-Match: *`), unless it is
to replace a damaged one.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from service.blobs.bucket import Bucket, NoSuchUpload, Object, aborted, presigned
from service.blobs.readers import S3Reader
from service.blobs.s3_staging import S3Staging
from service.blobs.staging import part_bytes
from service.blobs.store import (
    STAGED_STALE_AFTER_S,
    STALE_AFTER_S,
    BlobWriter,
    Content,
    chunks,
    copy_file,
)
from service.names import Digest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_HEX_DIGITS: Final = 64


class S3Store:
    """A blob store in a bucket, which must exist.

    With `presigner`, a client on the endpoint at which callers reach the store, they may be sent
    there with signed URLs.
    """

    def __init__(
        self,
        client: "S3Client",
        bucket: str,
        prefix: str = "",
        *,
        presigner: "S3Client | None" = None,
    ) -> None:
        self._bucket = Bucket(client, bucket)
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._presigner = presigner
        self._uploads = f"{self._prefix}uploads/"
        self.staging = S3Staging(self._bucket, self._uploads, self._object, presigner)

    @property
    def scratch(self) -> None:
        """None: there is no disk of the store's here."""

    def stat(self, digest: Digest) -> int | None:
        """The size of a blob in bytes; None where it is not stored."""
        return self._bucket.size(self._object(digest))

    def open(self, digest: Digest) -> S3Reader:
        """Open a blob for many reads; each read is a request of its own."""
        return S3Reader.of(self._bucket, self._object(digest))

    def read(self, digest: Digest, start: int, end: int) -> bytes:
        """Exactly the bytes `[start, end)` of a blob."""
        if start >= end:
            self.open(digest)
            return b""
        return self._bucket.read(self._object(digest), start, end)

    def stream(self, digest: Digest, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes `[start, end)` of a blob in chunks of at most 1 MiB.

        No connection is held while the consumer is slow.
        """
        with self.open(digest) as reader:
            yield from chunks(reader, start, reader.size_bytes if end is None else end)

    def writer(
        self, digest: Digest, size_bytes: int | None = None, *, replace: bool = False
    ) -> "S3Writer":
        """Begin to store a blob; the store's own limits show while it is written."""
        return S3Writer(self._bucket, self._object(digest), size_bytes, replace=replace)

    def put_file(self, digest: Digest, path: Path) -> None:
        """Store a copy of a file."""
        copy_file(self.writer(digest, path.stat().st_size, replace=True), path)

    def take_file(self, digest: Digest, path: Path) -> None:
        """Store a copy of a file."""
        self.put_file(digest, path)

    def delete(self, digest: Digest) -> None:
        """Remove a blob, if it is stored."""
        self._bucket.delete(self._object(digest).key)

    def digests(self) -> Iterator[tuple[Digest, int]]:
        """Every stored blob and its size in bytes."""
        for found in self._bucket.objects(f"{self._prefix}sha256/"):
            name = found.key.rpartition("/")[2]
            if len(name) == _HEX_DIGITS:
                yield Digest(f"sha256:{name}"), found.size_bytes

    def check(self) -> None:
        """Raise `StoreUnavailable` unless the bucket answers."""
        self._bucket.check()

    def sweep(
        self,
        older_than_s: float = STALE_AFTER_S,
        *,
        staged_older_than_s: float = STAGED_STALE_AFTER_S,
    ) -> int:
        """Abort multipart uploads begun so long ago: their parts take room and do not show."""
        now, swept = time.time(), 0
        for prefix, limit_s in (
            (f"{self._prefix}sha256/", older_than_s),
            (self._uploads, staged_older_than_s),
        ):
            for upload in list(self._bucket.uploads(prefix)):
                if now - upload.at.timestamp() > limit_s:
                    self._bucket.abort(upload.key, upload.upload)
                    swept += 1
        for sealed in list(self._bucket.objects(self._uploads)):
            if now - sealed.at.timestamp() > staged_older_than_s:
                self._bucket.delete(sealed.key)
                swept += 1
        return swept

    def local_path(self, digest: Digest) -> Path | None:  # noqa: ARG002  # the protocol's
        """None: there is no local file."""
        return None

    def presign_get(
        self,
        digest: Digest,
        *,
        expires_s: int,
        filename: str | None = None,
        content_type: str | None = None,
    ) -> str | None:
        """A URL of the store that gives a blob, whole or by ranges, to whoever holds it."""
        if self._presigner is None:
            return None
        params: dict[str, Any] = {
            "Bucket": self._bucket.name,
            "Key": self._object(digest).key,
            # An object that another tool has copied here may say aws-chunked (see `bucket.py`).
            "ResponseContentEncoding": "identity",
        }
        if filename is not None:
            quoted = filename.replace("\\", "\\\\").replace('"', '\\"')
            params["ResponseContentDisposition"] = f'attachment; filename="{quoted}"'
        if content_type is not None:
            params["ResponseContentType"] = content_type
        return presigned(self._presigner, "get_object", params, expires_s)

    def describe(self) -> str:
        """The bucket and the prefix as an S3 URL."""
        return f"s3://{self._bucket.name}/{self._prefix}".rstrip("/")

    def _object(self, digest: Digest) -> Object:
        name = digest.removeprefix("sha256:")
        return Object(f"{self._prefix}sha256/{name[:2]}/{name}", digest)


class S3Writer(BlobWriter):
    """An upload that holds at most one part in memory."""

    def __init__(
        self, bucket: Bucket, target: Object, size_bytes: int | None, *, replace: bool
    ) -> None:
        super().__init__(target.digest, size_bytes)
        self._bucket = bucket
        self._target = target
        self._replace = replace
        self._part_bytes = part_bytes(size_bytes or 0)
        self._held = bytearray()
        self._upload: str | None = None
        self._etags: list[str] = []

    def _store(self, content: Content) -> None:
        # Sent only when more follows: a blob of exactly one part is a single PUT.
        view = memoryview(content).cast("B")
        while len(self._held) + len(view) > self._part_bytes:
            room = self._part_bytes - len(self._held)
            self._held += view[:room]
            view = view[room:]
            self._send_part()
        self._held += view

    def _publish(self) -> None:
        if self._upload is None:
            self._bucket.put(self._target, bytes(self._held), replace=self._replace)
            return
        self._send_part()
        try:
            self._bucket.join(
                self._target, self._upload, self._etags, self.received_bytes, replace=self._replace
            )
        except NoSuchUpload as error:
            raise aborted() from error

    def _discard(self) -> None:
        self._held.clear()
        if self._upload is not None:
            self._bucket.drop(self._target, self._upload)

    def _send_part(self) -> None:
        if self._upload is None:
            self._upload = self._bucket.begin(self._target)
        number = len(self._etags) + 1
        content = bytes(self._held)
        try:
            etag = self._bucket.put_part(self._target, self._upload, number, content)
        except NoSuchUpload as error:
            raise aborted() from error
        self._etags.append(etag)
        self._held.clear()

"""Blobs in a bucket of an S3-compatible object store.

    BUCKET/PREFIX/sha256/ab/ab12…        one object a blob, named by its 64 hex digits

An object appears with the last request of its upload, and that one is sent only after the bytes
were counted and hashed here: up to 16 MiB one PUT, beyond that a multipart upload, aborted if it
comes to nothing. Only what AWS S3, Ceph, versitygw and SeaweedFS share is used: GET with Range,
HEAD, PUT with `If-None-Match: *` and a SHA-256 checksum, multipart uploads, DELETE, LIST without
regard to its order. Bodies are signed (`x-amz-content-sha256`), so the server checks each part.

No aws-chunked trailers (boto3's default on https): SeaweedFS 4.48 then keeps
`Content-Encoding: aws-chunked` on the object and hands it to every reader.
"""

import base64
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from service import errors
from service.blobs.store import MIB, STALE_AFTER_S, BlobWriter, Content, chunks, copy_file
from service.names import Digest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

PART_BYTES: Final = 16 * MIB
MAX_PARTS: Final = 10_000
_READ_BYTES: Final = 4 * MIB
_BODY_ATTEMPTS: Final = 3
_ABSENT: Final = frozenset({"404", "NoSuchKey", "NotFound"})
_FULL: Final = frozenset({"507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"})
_HEX_DIGITS: Final = 64


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a store may be silent before it counts as unavailable."""

    connect_s: float = 3
    read_s: float = 30
    attempts: int = 3


def connect(endpoint_url: str | None = None, patience: Patience | None = None) -> "S3Client":
    """A client with the keys and the region that boto3 finds (environment, profile, instance).

    With an own endpoint, buckets are addressed by path, as servers other than AWS want it.
    """
    patience = patience or Patience()
    # A session of its own: boto3's shared one keeps the keys that it found first.
    return boto3.Session().client(
        "s3",
        endpoint_url=endpoint_url,
        config=Config(
            signature_version="s3v4",
            connect_timeout=patience.connect_s,
            read_timeout=patience.read_s,
            retries={"total_max_attempts": patience.attempts, "mode": "standard"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            max_pool_connections=64,
            s3={
                "addressing_style": "path" if endpoint_url else "auto",
                "payload_signing_enabled": True,
            },
        ),
    )


class S3Store:
    """A blob store in a bucket, which must exist."""

    def __init__(self, client: "S3Client", bucket: str, prefix: str = "") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def stat(self, digest: Digest) -> int | None:
        """The size of a blob in bytes; None where it is not stored."""
        try:
            with self._calls(digest):
                found = self._client.head_object(Bucket=self._bucket, Key=self._key(digest))
        except errors.BlobNotFound:
            # HEAD has no body to tell a missing object from a missing bucket.
            self.check()
            return None
        return found["ContentLength"]

    def open(self, digest: Digest) -> "S3Reader":
        """Open a blob for many reads; each read is a request of its own."""
        if (size_bytes := self.stat(digest)) is None:
            raise errors.BlobNotFound(digest)
        return S3Reader(self, digest, size_bytes)

    def read(self, digest: Digest, start: int, end: int) -> bytes:
        """Exactly the bytes `[start, end)` of a blob."""
        if start >= end:
            self.open(digest)
            return b""
        for attempt in range(1, _BODY_ATTEMPTS + 1):
            try:
                with self._calls(digest):
                    content = self._get(digest, start, end)
            except errors.StoreUnavailable:
                # boto3 retries a request, never a body that breaks off.
                if attempt == _BODY_ATTEMPTS:
                    raise
            else:
                if len(content) != end - start:
                    raise errors.DamagedBlob(digest)
                return content
        raise AssertionError("the last attempt returns or raises")

    def _get(self, digest: Digest, start: int, end: int) -> bytes:
        answer = self._client.get_object(
            Bucket=self._bucket, Key=self._key(digest), Range=f"bytes={start}-{end - 1}"
        )
        with contextlib.closing(answer["Body"]) as body:
            return body.read()

    def stream(self, digest: Digest, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes `[start, end)` of a blob in chunks of at most 1 MiB.

        No connection is held while the consumer is slow.
        """
        with self.open(digest) as reader:
            yield from chunks(reader, start, reader.size_bytes if end is None else end)

    def writer(self, digest: Digest, size_bytes: int | None = None) -> "S3Writer":
        """Begin to store a blob; the store's own limits show while it is written."""
        return S3Writer(self, digest, size_bytes)

    def put_file(self, digest: Digest, path: Path) -> None:
        """Store a copy of a file."""
        copy_file(self.writer(digest, path.stat().st_size), path)

    def delete(self, digest: Digest) -> None:
        """Remove a blob, if it is stored."""
        with self._calls(digest):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(digest))

    def digests(self) -> Iterator[tuple[Digest, int]]:
        """Every stored blob and its size in bytes."""
        with self._calls():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=f"{self._prefix}sha256/"
            )
            for page in pages:
                for item in page.get("Contents", []):
                    name = item["Key"].rpartition("/")[2]
                    if len(name) == _HEX_DIGITS:
                        yield Digest(f"sha256:{name}"), item["Size"]

    def check(self) -> None:
        """Raise `StoreUnavailable` unless the bucket answers."""
        try:
            with self._calls(Digest("")):
                self._client.head_bucket(Bucket=self._bucket)
        except errors.BlobNotFound as error:
            raise errors.StoreUnavailable(f"there is no bucket {self._bucket!r}") from error

    def sweep(self, older_than_s: float = STALE_AFTER_S) -> int:
        """Abort multipart uploads begun so long ago: their parts take room and do not show."""
        swept = 0
        with self._calls():
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=f"{self._prefix}sha256/"
            )
            for upload in [upload for page in pages for upload in page.get("Uploads", [])]:
                if time.time() - upload["Initiated"].timestamp() > older_than_s:
                    self._client.abort_multipart_upload(
                        Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
                    swept += 1
        return swept

    def local_path(self, digest: Digest) -> Path | None:  # noqa: ARG002  # the protocol's
        """None: there is no local file."""
        return None

    def describe(self) -> str:
        """The bucket and the prefix as an S3 URL."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    # ── for the writer ───────────────────────────────────────────────────────────────────────

    def put(self, digest: Digest, content: bytes) -> None:
        """Store a small blob with one request."""
        try:
            self._put(digest, content, {"IfNoneMatch": "*"})
        except _AlreadyThere:
            return
        except _Contended:
            # AWS says so while another PUT of this key runs, which may fail yet.
            self._put(digest, content, {})

    def _put(self, digest: Digest, content: bytes, condition: dict[str, Any]) -> None:
        sha256 = bytes.fromhex(digest.removeprefix("sha256:"))
        with self._calls(digest, len(content)):
            self._client.put_object(
                Bucket=self._bucket,
                Key=self._key(digest),
                Body=content,
                ContentType="application/octet-stream",
                ChecksumSHA256=base64.b64encode(sha256).decode("ascii"),
                **condition,
            )

    def begin_parts(self, digest: Digest) -> str:
        """Begin a multipart upload and answer its id."""
        with self._calls(digest):
            answer = self._client.create_multipart_upload(
                Bucket=self._bucket,
                Key=self._key(digest),
                ContentType="application/octet-stream",
            )
        return answer["UploadId"]

    def put_part(self, digest: Digest, upload: str, number: int, content: bytes) -> str:
        """Send part `number`, counted from 1, and answer its entity tag."""
        with self._calls(digest, len(content)):
            answer = self._client.upload_part(
                Bucket=self._bucket,
                Key=self._key(digest),
                UploadId=upload,
                PartNumber=number,
                Body=content,
            )
        return answer["ETag"]

    def join_parts(self, digest: Digest, upload: str, etags: list[str], size_bytes: int) -> None:
        """Complete a multipart upload."""
        parts: list[CompletedPartTypeDef] = [
            {"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)
        ]
        try:
            with self._calls(digest, size_bytes):
                self._client.complete_multipart_upload(
                    Bucket=self._bucket,
                    Key=self._key(digest),
                    UploadId=upload,
                    MultipartUpload={"Parts": parts},
                )
        except errors.StoreUnavailable:
            # An answer may be lost, and the retry then meets an upload that is complete already.
            if self.stat(digest) != size_bytes:
                raise

    def drop_parts(self, digest: Digest, upload: str) -> None:
        """Abort a multipart upload; what cannot be reached now is left to `sweep`."""
        with contextlib.suppress(errors.StoreUnavailable, errors.BlobNotFound), self._calls(digest):
            self._client.abort_multipart_upload(
                Bucket=self._bucket, Key=self._key(digest), UploadId=upload
            )

    def _key(self, digest: Digest) -> str:
        name = digest.removeprefix("sha256:")
        return f"{self._prefix}sha256/{name[:2]}/{name}"

    @contextlib.contextmanager
    def _calls(self, digest: Digest | None = None, needed_bytes: int = 0) -> Iterator[None]:
        """Turn what boto3 raises into errors of our own."""
        try:
            yield
        except ClientError as error:
            raise _meaning(error, digest, needed_bytes) from error
        except (BotoCoreError, HTTPError, OSError) as error:
            # The type alone: the text holds the endpoint, and the message may reach any caller.
            raise errors.StoreUnavailable(type(error).__name__) from error


class _AlreadyThere(Exception):
    """The object exists, and it was to be written only if not."""


class _Contended(Exception):
    """Another request is writing the object."""


def _meaning(error: ClientError, digest: Digest | None, needed_bytes: int) -> Exception:
    answer: dict[str, Any] = dict(error.response)
    code = str(answer.get("Error", {}).get("Code", ""))
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if digest is not None and code in _ABSENT:
        return errors.BlobNotFound(digest)
    if digest is not None and code in {"416", "InvalidRange"}:
        return errors.DamagedBlob(digest)
    if code in {"PreconditionFailed", "412"}:
        return _AlreadyThere()
    if code == "ConditionalRequestConflict":
        return _Contended()
    if code in _FULL or status == 507:  # noqa: PLR2004  # Insufficient Storage
        return errors.DiskFull(needed_bytes, 0)
    return errors.StoreUnavailable(f"it answered {status} {code}")


class S3Reader:
    """A blob read by ranges, each a request of its own."""

    chunk_bytes = _READ_BYTES

    def __init__(self, store: S3Store, digest: Digest, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._store = store
        self._digest = digest

    def read(self, start: int, end: int) -> bytes:
        """Exactly the bytes `[start, end)`."""
        return self._store.read(self._digest, start, end)

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


class S3Writer(BlobWriter):
    """An upload that holds at most one part in memory."""

    def __init__(self, store: S3Store, digest: Digest, size_bytes: int | None) -> None:
        super().__init__(digest, size_bytes)
        self._s3 = store
        # 10 000 parts are the limit: beyond 156 GiB announced, parts grow.
        self._part_bytes = max(PART_BYTES, -(-(size_bytes or 0) // MAX_PARTS))
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
            self._s3.put(self.digest, bytes(self._held))
            return
        self._send_part()
        self._s3.join_parts(self.digest, self._upload, self._etags, self.received_bytes)

    def _discard(self) -> None:
        self._held.clear()
        if self._upload is not None:
            self._s3.drop_parts(self.digest, self._upload)

    def _send_part(self) -> None:
        if self._upload is None:
            self._upload = self._s3.begin_parts(self.digest)
        number = len(self._etags) + 1
        self._etags.append(self._s3.put_part(self.digest, self._upload, number, bytes(self._held)))
        self._held.clear()

"""One bucket of an S3-compatible object store: the few calls that the stores of this floor make.

Only what AWS S3, Ceph, versitygw and SeaweedFS share is used: GET with Range, HEAD, PUT with
`If-None-Match: *` and a SHA-256 checksum, multipart uploads with copied parts, DELETE, LIST without
regard to its order, and URLs signed for one request. Bodies are signed (`x-amz-content-sha256`), so
the server checks what we send; what clients send by a signed URL, it checks against `Content-MD5`.

No aws-chunked trailers (boto3's default on https): SeaweedFS 4.48 then keeps
`Content-Encoding: aws-chunked` on the object and hands it to every reader.
"""

import base64
import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from service import errors
from service.blobs.streams import MIB
from service.names import Digest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

COPY_BYTES: Final = 256 * MIB
"""What one request copies within the store: AWS takes up to 5 GiB, but SeaweedFS copies 1 GiB in
about 12 s, and an answer must come before the read timeout."""
_BODY_ATTEMPTS: Final = 3
_ABSENT: Final = frozenset({"404", "NoSuchKey", "NotFound"})
_FULL: Final = frozenset({"507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"})
_BINARY: Final = "application/octet-stream"


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


class AlreadyThere(Exception):
    """The object exists, and it was to be written only if not."""


class Contended(Exception):
    """Another request is writing the object."""


class NoSuchUpload(Exception):
    """The multipart upload was completed or aborted, or never was."""


_SIGNALS: Final[Mapping[str, type[Exception]]] = {
    "NoSuchUpload": NoSuchUpload,
    "PreconditionFailed": AlreadyThere,
    "412": AlreadyThere,
    "ConditionalRequestConflict": Contended,
}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a multipart upload that has arrived."""

    number: int
    size_bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class Listed:
    """An object, or a multipart upload with its id, and when it was written or begun."""

    key: str
    at: datetime
    size_bytes: int = 0
    upload: str = ""


@dataclass(frozen=True, slots=True)
class Object:
    """Where bytes lie, and the digest that errors about them name."""

    key: str
    digest: Digest


class Bucket:
    """The calls of one bucket; every one may raise `StoreUnavailable`."""

    def __init__(self, client: "S3Client", name: str) -> None:
        self.name = name
        self._client = client

    def check(self) -> None:
        """Raise `StoreUnavailable` unless the bucket answers."""
        try:
            with self._calls(Digest("")):
                self._client.head_bucket(Bucket=self.name)
        except errors.BlobNotFound as error:
            raise errors.StoreUnavailable(f"there is no bucket {self.name!r}") from error

    # ── whole objects ────────────────────────────────────────────────────────────────────────

    def size(self, at: Object) -> int | None:
        """The size of an object in bytes; None where there is none."""
        try:
            with self._calls(at.digest):
                found = self._client.head_object(Bucket=self.name, Key=at.key)
        except errors.BlobNotFound:
            # HEAD has no body to tell a missing object from a missing bucket.
            self.check()
            return None
        return found["ContentLength"]

    def read(self, at: Object, start: int, end: int) -> bytes:
        """Exactly the bytes `[start, end)`; raises `BlobNotFound` and `DamagedBlob`."""
        for attempt in range(1, _BODY_ATTEMPTS + 1):
            try:
                with self._calls(at.digest):
                    content = self._get(at.key, start, end)
            except errors.StoreUnavailable:
                # boto3 retries a request, never a body that breaks off.
                if attempt == _BODY_ATTEMPTS:
                    raise
            else:
                if len(content) != end - start:
                    raise errors.DamagedBlob(at.digest)
                return content
        raise AssertionError("the last attempt returns or raises")

    def _get(self, key: str, start: int, end: int) -> bytes:
        answer = self._client.get_object(
            Bucket=self.name, Key=key, Range=f"bytes={start}-{end - 1}"
        )
        with contextlib.closing(answer["Body"]) as body:
            return body.read()

    def put(self, at: Object, content: bytes, *, replace: bool) -> None:
        """Store a small object with one request.

        One that is there with its full size stays, but for `replace`.
        """
        try:
            self._put(at, content, {} if replace else {"IfNoneMatch": "*"})
        except AlreadyThere:
            if self.size(at) != len(content):
                self._put(at, content, {})
        except Contended:
            # AWS says so while another PUT of this key runs, which may fail yet.
            self._put(at, content, {})

    def _put(self, at: Object, content: bytes, condition: dict[str, Any]) -> None:
        sha256 = bytes.fromhex(at.digest.removeprefix("sha256:"))
        with self._calls(at.digest, len(content)):
            self._client.put_object(
                Bucket=self.name,
                Key=at.key,
                Body=content,
                ContentType=_BINARY,
                ChecksumSHA256=base64.b64encode(sha256).decode("ascii"),
                **condition,
            )

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        with self._calls():
            self._client.delete_object(Bucket=self.name, Key=key)

    def objects(self, prefix: str) -> Iterator[Listed]:
        """Every object whose key begins so, in no order."""
        with self._calls():
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.name, Prefix=prefix
            ):
                for item in page.get("Contents", []):
                    yield Listed(item["Key"], item["LastModified"], item["Size"])

    # ── objects in parts ─────────────────────────────────────────────────────────────────────

    def begin(self, at: Object) -> str:
        """Begin a multipart upload and answer its id."""
        with self._calls(at.digest):
            answer = self._client.create_multipart_upload(
                Bucket=self.name, Key=at.key, ContentType=_BINARY
            )
        return answer["UploadId"]

    def put_part(self, at: Object, upload: str, number: int, content: bytes) -> str:
        """Send part `number`, counted from 1, and answer its entity tag; raises `NoSuchUpload`."""
        with self._calls(at.digest, len(content)):
            answer = self._client.upload_part(
                Bucket=self.name, Key=at.key, UploadId=upload, PartNumber=number, Body=content
            )
        return answer["ETag"]

    def parts(self, at: Object, upload: str) -> list[Part]:
        """The parts that have arrived, also those that were sent anew; raises `NoSuchUpload`."""
        found: list[Part] = []
        with self._calls(at.digest):
            for page in self._client.get_paginator("list_parts").paginate(
                Bucket=self.name, Key=at.key, UploadId=upload
            ):
                found += [
                    Part(each["PartNumber"], each["Size"], each["ETag"])
                    for each in page.get("Parts", [])
                ]
        return found

    def join(
        self, at: Object, upload: str, etags: list[str], size_bytes: int, *, replace: bool
    ) -> None:
        """Complete a multipart upload of `size_bytes`; raises `NoSuchUpload`.

        An object that is there with this size stays, but for `replace`, and the parts are dropped.
        """
        former = self._edition(at) if replace else None
        try:
            try:
                condition = {} if replace else {"IfNoneMatch": "*"}
                self._join(at, upload, etags, size_bytes, condition)
            except AlreadyThere:
                if self.size(at) == size_bytes:
                    self.drop(at, upload)
                else:
                    self._join(at, upload, etags, size_bytes, {})
            except Contended:
                self._join(at, upload, etags, size_bytes, {})
        except (errors.StoreUnavailable, NoSuchUpload):
            # An answer may be lost, and the retry then meets an upload that is complete already.
            # What was to be replaced had that size before, too.
            if self.size(at) != size_bytes or (replace and self._edition(at) == former):
                raise

    def _join(
        self, at: Object, upload: str, etags: list[str], size_bytes: int, condition: dict[str, Any]
    ) -> None:
        parts: list[CompletedPartTypeDef] = [
            {"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)
        ]
        with self._calls(at.digest, size_bytes):
            self._client.complete_multipart_upload(
                Bucket=self.name,
                Key=at.key,
                UploadId=upload,
                MultipartUpload={"Parts": parts},
                **condition,
            )

    def _edition(self, at: Object) -> tuple[str, datetime] | None:
        """What tells an object from the one that takes its place; None where there is none."""
        try:
            with self._calls(at.digest):
                found = self._client.head_object(Bucket=self.name, Key=at.key)
        except errors.BlobNotFound:
            return None
        return found["ETag"], found["LastModified"]

    def drop(self, at: Object, upload: str) -> None:
        """Abort a multipart upload; what cannot be reached now is left to a sweep."""
        with contextlib.suppress(errors.StoreUnavailable):
            self.abort(at.key, upload)

    def abort(self, key: str, upload: str) -> None:
        """Abort a multipart upload, if there is one."""
        with contextlib.suppress(NoSuchUpload), self._calls():
            self._client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload)

    def uploads(self, prefix: str) -> Iterator[Listed]:
        """Every multipart upload under way whose key begins so."""
        with self._calls():
            for page in self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.name, Prefix=prefix
            ):
                for each in page.get("Uploads", []):
                    yield Listed(each["Key"], each["Initiated"], upload=each["UploadId"])

    # ── within the store ─────────────────────────────────────────────────────────────────────

    def copy(
        self, source: Object, target: Object, size_bytes: int, told: Callable[[int], None]
    ) -> None:
        """Copy an object, its bytes staying in the store; the target appears or changes at once.

        `told` hears how many bytes are copied; what it raises ends the copy without a trace. Raises
        `BlobNotFound` and `DiskFull`.
        """
        if size_bytes > COPY_BYTES:
            self._copy_parts(source, target, size_bytes, told)
            return
        with self._calls(source.digest, size_bytes):
            self._client.copy_object(
                Bucket=self.name,
                Key=target.key,
                CopySource={"Bucket": self.name, "Key": source.key},
            )

    def _copy_parts(
        self, source: Object, target: Object, size_bytes: int, told: Callable[[int], None]
    ) -> None:
        upload = self.begin(target)
        etags = []
        try:
            for number, (start, end) in enumerate(_pieces(size_bytes), 1):
                etags.append(self._copy_part(source, target, upload, number, (start, end)))
                told(end)
            self.join(target, upload, etags, size_bytes, replace=True)
        except NoSuchUpload as error:
            raise aborted() from error
        except BaseException:
            self.drop(target, upload)
            raise

    def _copy_part(
        self, source: Object, target: Object, upload: str, number: int, piece: tuple[int, int]
    ) -> str:
        start, end = piece
        with self._calls(source.digest, end - start):
            answer = self._client.upload_part_copy(
                Bucket=self.name,
                Key=target.key,
                UploadId=upload,
                PartNumber=number,
                CopySource={"Bucket": self.name, "Key": source.key},
                CopySourceRange=f"bytes={start}-{end - 1}",
            )
        return answer["CopyPartResult"]["ETag"]

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


def aborted() -> errors.StoreUnavailable:
    """A multipart upload of our own went away while it was written: a sweep took it for dead."""
    return errors.StoreUnavailable("an upload was aborted under way")


def presigned(client: "S3Client", call: str, params: Mapping[str, Any], expires_s: int) -> str:
    """A URL that lets whoever holds it make one call for so long; computed, nobody is asked.

    Raises `StoreUnavailable` where there are no keys to sign with.
    """
    try:
        return client.generate_presigned_url(call, Params=params, ExpiresIn=expires_s)
    except BotoCoreError as error:
        raise errors.StoreUnavailable(type(error).__name__) from error


def _pieces(size_bytes: int) -> list[tuple[int, int]]:
    """Ranges `[start, end)` that one request each can copy, at most 10 000."""
    step = max(COPY_BYTES, -(-size_bytes // 10_000))
    return [(at, min(at + step, size_bytes)) for at in range(0, size_bytes, step)]


def _meaning(error: ClientError, digest: Digest | None, needed_bytes: int) -> Exception:
    answer: dict[str, Any] = dict(error.response)
    code = str(answer.get("Error", {}).get("Code", ""))
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if signal := _SIGNALS.get(code):
        return signal()
    if digest is not None and code in _ABSENT:
        return errors.BlobNotFound(digest)
    if digest is not None and code in {"416", "InvalidRange"}:
        return errors.DamagedBlob(digest)
    if code in _FULL or status == 507:  # noqa: PLR2004  # Insufficient Storage
        return errors.DiskFull(needed_bytes, 0)
    return errors.StoreUnavailable(f"it answered {status} {code}")

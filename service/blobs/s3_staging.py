"""Uploads in parts on S3: one multipart upload each, whose parts clients send by signed URLs.

    BUCKET/PREFIX/uploads/ID    appears when the upload is sealed, goes when it is published

S3 knows no sha256 of an object that was made in parts, so the parts are joined under a key of the
upload's own; only what was read back and hashed is copied, within the store, to its digest's key.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from service import errors
from service.blobs.bucket import Bucket, NoSuchUpload, Object, Part, presigned
from service.blobs.readers import S3Reader
from service.blobs.staging import Staged, check_complete, part_bytes, unheard
from service.blobs.streams import BlobWriter, Content
from service.names import Digest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class S3Staging:
    """The uploads in parts of a bucket; `blob` tells where a digest's own place is."""

    def __init__(
        self,
        bucket: Bucket,
        prefix: str,
        blob: Callable[[Digest], Object],
        presigner: "S3Client | None",
    ) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._blob = blob
        self._presigner = presigner

    def begin(self, upload: str, digest: Digest, size_bytes: int) -> Staged:
        """Begin a multipart upload."""
        token = self._bucket.begin(Object(self._prefix + upload, digest))
        return Staged(upload, digest, size_bytes, part_bytes(size_bytes), token)

    def part_url(self, staged: Staged, number: int, expires_s: int) -> str | None:
        """A signed URL; the part's size is signed with it, so a longer body is refused."""
        size_bytes = staged.part_size(number)
        if self._presigner is None:
            return None
        params = {
            "Bucket": self._bucket.name,
            "Key": self._at(staged).key,
            "UploadId": staged.token,
            "PartNumber": number,
            "ContentLength": size_bytes,
        }
        return presigned(self._presigner, "upload_part", params, expires_s)

    def part_writer(
        self, staged: Staged, number: int, digest: Digest | None = None
    ) -> "S3PartWriter":
        """Take a part for a client that does not reach the store itself."""
        return S3PartWriter(self, staged, number, digest)

    def put_part(self, staged: Staged, number: int, content: bytes) -> None:
        """Send a part; raises `UploadSealed` and `UploadEnded`."""
        try:
            self._bucket.put_part(self._at(staged), staged.token, number, content)
        except NoSuchUpload:
            if self._is_sealed(staged):
                raise errors.UploadSealed(staged.id) from None
            raise _gone(staged) from None

    def arrived(self, staged: Staged) -> frozenset[int]:
        """The parts that are there with the size that they should have."""
        try:
            return frozenset(self._parts(staged))
        except errors.UploadSealed:
            return frozenset(range(1, staged.part_count + 1))

    def seal(self, staged: Staged) -> None:
        """Complete the multipart upload."""
        if self._is_sealed(staged):
            return
        parts = self._parts(staged)
        check_complete(staged, parts)
        etags = [parts[number].etag for number in range(1, staged.part_count + 1)]
        try:
            self._bucket.join(
                self._at(staged), staged.token, etags, staged.size_bytes, replace=False
            )
        except NoSuchUpload:
            raise _gone(staged) from None

    def open(self, staged: Staged) -> S3Reader:
        """Open the joined object."""
        try:
            return S3Reader.of(self._bucket, self._at(staged))
        except errors.BlobNotFound:
            raise _gone(staged) from None

    def publish(self, staged: Staged, told: Callable[[int], None] = unheard) -> None:
        """Copy the joined object to its digest's key, then remove it."""
        source, target = self._at(staged), self._blob(staged.digest)
        try:
            self._bucket.copy(source, target, staged.size_bytes, told)
        except errors.BlobNotFound:
            raise _gone(staged) from None
        self._bucket.delete(source.key)

    def discard(self, staged: Staged) -> None:
        """Abort the multipart upload, and remove the joined object."""
        self._bucket.abort(self._at(staged).key, staged.token)
        self._bucket.delete(self._at(staged).key)

    def _at(self, staged: Staged) -> Object:
        return Object(self._prefix + staged.id, staged.digest)

    def _is_sealed(self, staged: Staged) -> bool:
        return self._bucket.size(self._at(staged)) == staged.size_bytes

    def _parts(self, staged: Staged) -> dict[int, Part]:
        """The parts by number; a part sent twice is listed twice by SeaweedFS 4.48."""
        try:
            found = self._bucket.parts(self._at(staged), staged.token)
        except NoSuchUpload:
            if self._is_sealed(staged):
                raise errors.UploadSealed(staged.id) from None
            raise _gone(staged) from None
        numbers = range(1, staged.part_count + 1)
        return {
            part.number: part
            for part in found
            if part.number in numbers and part.size_bytes == staged.part_size(part.number)
        }


def _gone(staged: Staged) -> errors.UploadEnded:
    return errors.UploadEnded(staged.id, "is not in the store any more")


class S3PartWriter(BlobWriter):
    """A part on its way through the service; held in memory, since S3 takes it in one request."""

    def __init__(
        self, staging: S3Staging, staged: Staged, number: int, digest: Digest | None
    ) -> None:
        super().__init__(digest, staged.part_size(number))
        self._staging = staging
        self._staged = staged
        self._number = number
        self._held = bytearray()

    def _store(self, content: Content) -> None:
        self._held += memoryview(content).cast("B")

    def _publish(self) -> None:
        self._staging.put_part(self._staged, self._number, bytes(self._held))
        self._held.clear()

    def _discard(self) -> None:
        self._held.clear()

"""Bytes named by digest: known? send, fetch."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.client.downloads import Downloaded, Progress, fetch, silent
from service.client.problem import ServiceProblem
from service.client.transport import Transport
from service.client.uploads import Uploads
from service.layout.disk import read_chunks
from service.names import Digest
from service.schemas.wire import BlobView

RESUMABLE_FROM: Final = 32 * 2**20
"""Files as large as this are sent in parts; of smaller ones a broken upload costs little."""

_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A blob that the service holds; `sent` False: it held it before."""

    digest: Digest
    size_bytes: int
    sent: bool


@dataclass(frozen=True, slots=True)
class Blobs:
    """The service's blobs."""

    transport: Transport

    def exists(self, digest: str) -> bool:
        """Whether the service holds these bytes."""
        try:
            self.transport.send("HEAD", f"/v1/blobs/{digest}")
        except ServiceProblem as problem:
            if problem.status == _NOT_FOUND:
                return False
            raise
        return True

    def upload(
        self,
        file: Path,
        *,
        hashing: Progress = silent,
        sending: Progress = silent,
        checking: Progress = silent,
    ) -> Uploaded:
        """Send a file, unless the service holds its bytes already.

        A large one goes in parts: killed at any point and called again, it goes on where it was.
        """
        digest, size = file_digest(file, hashing)
        if self.exists(digest):
            return Uploaded(digest, size, sent=False)
        if size >= RESUMABLE_FROM:
            uploads = Uploads(self.transport)
            sent = uploads.send(file, digest, sending=sending, checking=checking)
            return Uploaded(digest, size, sent=sent)
        return self._put(file, digest, size, sending)

    def _put(self, file: Path, digest: Digest, size: int, sending: Progress) -> Uploaded:
        def content() -> Iterator[bytes]:
            done = 0
            with file.open("rb") as opened:
                for chunk in read_chunks(opened, 0, size):
                    yield chunk
                    done += len(chunk)
                    sending(done, size)

        view = self.transport.ask(
            "PUT",
            f"/v1/blobs/{digest}",
            BlobView,
            content=content,
            headers={"Content-Length": str(size), "Content-Type": "application/octet-stream"},
        )
        return Uploaded(digest, view.size_bytes, sent=True)

    def download(self, digest: Digest, into: Path, *, progress: Progress = silent) -> Downloaded:
        """Fetch a blob to file `into`; raises `ServiceProblem` and `NotVerified`."""
        found = fetch(
            self.transport, f"/v1/blobs/{digest}", into, expected=digest, progress=progress
        )
        assert found is not None  # noqa: S101  # no condition was sent that could give a 304
        return found


def file_digest(file: Path, progress: Progress = silent) -> tuple[Digest, int]:
    """The digest and size of a local file."""
    size, done, sha256 = file.stat().st_size, 0, hashlib.sha256()
    with file.open("rb") as opened:
        for chunk in read_chunks(opened, 0, size):
            sha256.update(chunk)
            done += len(chunk)
            progress(done, size)
    return Digest("sha256:" + sha256.hexdigest()), size

"""Files fetched to disk: resumed where a connection broke, whole and verified, or not there.

FILE.part        what has arrived so far
FILE.part.etag   the entity tag it belongs to, so that another run can go on (If-Range)
FILE             only ever the whole file, its digest checked
"""

import base64
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import httpx2

from service import errors
from service.client.problem import ServiceProblem, unreachable
from service.client.transport import BACKOFF_S, Transport, etag
from service.layout.disk import DISK, lock, read_chunks
from service.names import Digest, parse_digest

Progress = Callable[[int, int], None]
"""`progress(done, total)` in bytes; `total` is 0 where it is not known."""
Check = Callable[[Path, Digest], None]
"""Looks at a file that has arrived before it gets its name; raises where it is not right."""

AGAIN: Final = "fetch it again; where it stays so, `patchbay verify` finds what is damaged there"

_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)")
_REPR_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/=]+):")
_PARTIAL: Final = 206
_NOT_SATISFIABLE: Final = 416


def silent(done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file that lies on disk, whole."""

    path: Path
    digest: Digest
    size_bytes: int
    etag: str | None
    headers: Mapping[str, str]
    verified: bool
    """Whether its bytes were held against a digest that was known, or stated by the service."""


def fetch(
    transport: Transport,
    url: str,
    into: Path,
    *,
    expected: Digest | None = None,
    check: Check | None = None,
    params: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    progress: Progress = silent,
    silence_s: float | None = None,
) -> Downloaded | None:
    """Fetch `url` into file `into`; None where the service says 304.

    A silence of the service of `silence_s` counts as a broken connection.

    The bytes must hash to `expected`, or else to what the service states in `Repr-Digest`; `check`
    is asked where neither is known. Raises `ServiceProblem` and `NotVerified`.
    """
    options: dict[str, Any] = {"params": dict(params or {}), "follow_redirects": True}
    if silence_s is not None:
        options["timeout"] = httpx2.Timeout(silence_s)
    download = _Download(transport, url, into, options, dict(headers or {}), progress)
    try:
        response = download.run()
    except ServiceProblem:
        if not download.size:
            download.discard()
        raise
    if response is None:
        download.discard()
        return None
    asked = _asked(response)
    stated = expected or repr_digest(asked.headers)
    if stated is not None and stated != download.digest:
        download.discard()
        raise errors.NotVerified(url, stated, download.digest, AGAIN)
    if stated is None and check is not None:
        try:
            check(download.part, download.digest)
        except errors.NotVerified:
            download.discard()
            raise
    download.publish()
    return Downloaded(
        path=into,
        digest=download.digest,
        size_bytes=download.size,
        etag=etag(asked),
        headers=dict(asked.headers.items()),
        verified=stated is not None or check is not None,
    )


def repr_digest(headers: Mapping[str, str]) -> Digest | None:
    """The sha256 of the whole file as the service states it (RFC 9530)."""
    found = _REPR_DIGEST.search(headers.get("Repr-Digest", ""))
    if found is None:
        return None
    try:
        return parse_digest("sha256:" + base64.b64decode(found[1], validate=True).hex())
    except (ValueError, errors.BadDigest):
        return None


def _asked(response: httpx2.Response) -> httpx2.Response:
    """The service's own answer: validators are its, wherever it sent us for the bytes."""
    return response.history[0] if response.history else response


@dataclass
class _Download:
    """A download under way."""

    transport: Transport
    url: str
    into: Path
    options: dict[str, Any]
    headers: dict[str, str]
    progress: Progress
    size: int = 0

    def __post_init__(self) -> None:
        self.part = self.into.with_name(self.into.name + ".part")
        self.tag = self.into.with_name(self.into.name + ".part.etag")
        self._sha256 = hashlib.sha256()

    @property
    def digest(self) -> Digest:
        """The digest of what has arrived."""
        return Digest("sha256:" + self._sha256.hexdigest())

    def run(self) -> httpx2.Response | None:
        """Fetch until the file is whole; a try that brought bytes is not counted as failed."""
        failures = 0
        with self._opened() as file, lock(self.part):
            self._read(file)
            while True:
                before = self.size
                try:
                    return self._attempt(file)
                except httpx2.TransportError as error:
                    failures = 0 if self.size > before else failures + 1
                    if failures > len(BACKOFF_S):
                        raise unreachable(str(self.transport.http.base_url), error) from error
                    self.transport.sleep(BACKOFF_S[max(failures - 1, 0)])

    def _opened(self) -> BinaryIO:
        """The partial file, behind what an earlier run left of the same state."""
        self.into.parent.mkdir(parents=True, exist_ok=True)
        if not self.tag.is_file():
            self.part.unlink(missing_ok=True)
        return self.part.open("r+b" if self.part.is_file() else "w+b")

    def _read(self, file: BinaryIO) -> None:
        for chunk in read_chunks(file, 0, os.fstat(file.fileno()).st_size):
            self._took(chunk)

    def _took(self, chunk: bytes) -> None:
        self._sha256.update(chunk)
        self.size += len(chunk)

    def _restart(self, file: BinaryIO) -> None:
        self.size, self._sha256 = 0, hashlib.sha256()
        file.seek(0)
        file.truncate()

    def _attempt(self, file: BinaryIO) -> httpx2.Response | None:
        headers = {**self.headers, "Accept-Encoding": "identity"}
        if self.size and self.tag.is_file():
            headers["Range"] = f"bytes={self.size}-"
            headers["If-Range"] = self.tag.read_text()
        try:
            with self.transport.stream(
                "GET", self.url, headers=headers, **self.options
            ) as response:
                return self._receive(file, response)
        except ServiceProblem as problem:
            if problem.status != _NOT_SATISFIABLE or "Range" not in headers:
                raise
        whole = self._whole()
        if whole is None:
            self._restart(file)
            self.tag.unlink(missing_ok=True)
            return self._attempt(file)
        return whole

    def _whole(self) -> httpx2.Response | None:
        """What the service says of the file, if all of it arrived in an earlier run."""
        head = self.transport.send("HEAD", self.url, **self.options)
        same = etag(head) == self.tag.read_text()
        size = int(head.headers.get("Content-Length") or -1)
        return head if same and size == self.size else None

    def _receive(self, file: BinaryIO, response: httpx2.Response) -> httpx2.Response | None:
        if response.status_code == httpx2.codes.NOT_MODIFIED:
            return None
        total = self._position(file, response)
        # As they come from the network: chunks of a set size would be lost in part at a break.
        for chunk in response.iter_raw():
            file.write(chunk)
            self._took(chunk)
            self.progress(self.size, total)
        if total and self.size != total:
            raise httpx2.RemoteProtocolError(f"{self.size} of {total} bytes arrived")
        file.flush()
        os.fsync(file.fileno())
        return response

    def _position(self, file: BinaryIO, response: httpx2.Response) -> int:
        """Stand where the response's bytes belong; answers the size of the whole file."""
        if response.status_code == _PARTIAL:
            found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if found is not None and int(found[1]) == self.size:
                file.seek(self.size)
                return int(found[3])
            raise httpx2.RemoteProtocolError("the range that came is not the one asked for")
        self._restart(file)
        tag = etag(_asked(response))
        if tag is not None and not tag.startswith("W/"):
            self.tag.write_text(tag)
        else:
            self.tag.unlink(missing_ok=True)
        return int(response.headers.get("Content-Length") or 0)

    def discard(self) -> None:
        """Throw away what arrived."""
        self.part.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)

    def publish(self) -> None:
        """Give the file its name."""
        DISK.publish(self.part, self.into)
        self.tag.unlink(missing_ok=True)

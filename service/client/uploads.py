"""Large files in parts: several at a time, straight to the store where it has an address for them.

The service knows what has arrived, so nothing is kept here: whoever sends the same bytes again, in
another process or after any crash, goes on where the upload stood.
"""

import base64
import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from service import errors
from service.client.downloads import Progress, silent
from service.client.operations import AWAY, Operations
from service.client.problem import OperationProblem, ServiceProblem
from service.client.transport import Transport, read
from service.names import Digest
from service.schemas.operations import OperationView
from service.schemas.uploads import BeginUpload, PartView, UploadState, UploadView

AT_ONCE: Final = 4
"""How many parts travel at a time; each is held in memory meanwhile."""
PATIENCE_S: Final = 120.0
"""How long it is tried again, in pauses, though nothing more arrives."""
LONGEST_PAUSE_S: Final = 8.0

_OK: Final = 200
_CHUNK_BYTES: Final = 1 << 18
_TOO_MANY: Final = 429
_PASSING: Final = frozenset(
    {
        "body-cut-off",  # the connection broke
        "digest-mismatch",  # of a part: bytes turned on their way
        "parts-missing",
        "upload-ended",  # the next round begins another
        "upload-sealed",  # somebody else with this token has completed it
    }
)
"""Problems of one round after which the next one may go well."""
_REPEATABLE: Final = frozenset(
    {"database-unavailable", "parts-missing", "store-unavailable", "upload-ended", "worker-died"}
)
"""Problems of a check after which another may go well."""


@dataclass(frozen=True, slots=True)
class Uploads:
    """The caller's uploads in parts."""

    transport: Transport

    def begin(self, digest: Digest, size_bytes: int) -> UploadView | None:
        """Begin an upload or go on with the caller's own; None where the blob is there already."""
        body = BeginUpload(digest=digest, size_bytes=size_bytes)
        response = self.transport.send("POST", "/v1/uploads", body=body)
        return None if response.status_code == _OK else read(response, UploadView)

    def get(self, upload: str, *, after: int = 0) -> UploadView:
        """An upload, with addresses of the missing parts behind number `after`."""
        return self.transport.get(f"/v1/uploads/{upload}", UploadView, params={"after": after})

    def complete(self, upload: str) -> OperationView:
        """Have the whole checked and made a blob."""
        return self.transport.ask("POST", f"/v1/uploads/{upload}/complete", OperationView)

    def abort(self, upload: str) -> None:
        """Give an upload up."""
        self.transport.send("DELETE", f"/v1/uploads/{upload}")

    def send(
        self, file: Path, digest: Digest, *, sending: Progress = silent, checking: Progress = silent
    ) -> bool:
        """Send a file of this digest until it is a blob; False where it was one already.

        A service or a store that is away is waited for, two minutes without any progress at most.
        Raises `ServiceProblem`, and `OperationProblem` where the bytes turn out to be others.
        """
        with file.open("rb") as opened:
            size_bytes = os.fstat(opened.fileno()).st_size
            sending_ = _Sending(self, opened.fileno(), digest, size_bytes, sending, checking)
            return sending_.run()


@dataclass
class _Sending:
    """A file on its way."""

    uploads: Uploads
    descriptor: int
    digest: Digest
    size_bytes: int
    sending: Progress
    checking: Progress
    waited_s: float = 0.0
    most_arrived: int = -1
    _sent: dict[int, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> bool:
        """Each round asks the service where the upload stands, and does what comes next."""
        was_sent = False
        while True:
            try:
                upload = self.uploads.begin(self.digest, self.size_bytes)
                if upload is None or upload.state is UploadState.DONE:
                    return was_sent
                was_sent = True
                self._round(upload)
            except _Again as again:
                self._pause(again.problem)
            except ServiceProblem as problem:
                if not _may_pass(problem):
                    raise
                self._pause(problem)

    def _round(self, upload: UploadView) -> None:
        if len(upload.arrived) > self.most_arrived:
            self.most_arrived, self.waited_s = len(upload.arrived), 0.0
        self._sent = {
            number: min(upload.part_bytes, upload.size_bytes - (number - 1) * upload.part_bytes)
            for number in upload.arrived
        }
        self._tell()
        if upload.parts:
            self._send_parts(upload)
        else:
            self._check(upload)

    def _pause(self, problem: ServiceProblem) -> None:
        if self.waited_s >= PATIENCE_S:
            raise problem
        pause_s = min(max(0.5, self.waited_s), LONGEST_PAUSE_S)
        self.uploads.transport.sleep(pause_s)
        self.waited_s += pause_s

    def _check(self, upload: UploadView) -> None:
        transport = self.uploads.transport
        operation = self.uploads.complete(upload.id)

        def watch(seen: OperationView) -> None:
            self.checking(round(seen.progress * self.size_bytes), self.size_bytes)

        try:
            Operations(transport).wait(operation.id, watch=watch)
        except OperationProblem as problem:
            if problem.slug not in _REPEATABLE:
                raise
            raise _Again(problem) from problem

    # ── parts ────────────────────────────────────────────────────────────────────────────────

    def _send_parts(self, upload: UploadView) -> None:
        """Send a page of parts; after a failure those under way are seen to their end."""
        with ThreadPoolExecutor(AT_ONCE, "upload") as pool:
            parts = [pool.submit(self._send_part, part, upload.part_bytes) for part in upload.parts]
            try:
                for part in as_completed(parts):
                    part.result()
            except BaseException as error:
                if not isinstance(error, Exception):  # Ctrl-C
                    self._stopped.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _send_part(self, part: PartView, part_bytes: int) -> None:
        content = os.pread(self.descriptor, part.size_bytes, (part.number - 1) * part_bytes)
        if len(content) < part.size_bytes:
            raise errors.BodyCutOff(part.size_bytes, len(content))
        try:
            self._put(part, content)
        except ServiceProblem as problem:
            if _is_own(part):
                raise
            # Whatever a store says (its URLs expire, its nodes come and go): the next round brings
            # fresh addresses, and tells whether the part is still missing.
            raise _Again(problem) from problem

    def _put(self, part: PartView, content: bytes) -> None:
        headers = {"Content-Length": str(len(content)), **_checksum(part, content)}
        with self.uploads.transport.stream(
            "PUT",
            part.url,
            content=lambda: self._content(part.number, content),
            headers=headers,
        ) as answer:
            if not answer.is_success:
                told = f"the answer to part {part.number} was {answer.status_code}"
                raise ServiceProblem(answer.status_code, "part-refused", told)

    def _content(self, number: int, content: bytes) -> Iterator[bytes]:
        for at in range(0, len(content), _CHUNK_BYTES):
            if self._stopped.is_set():
                raise KeyboardInterrupt
            yield content[at : at + _CHUNK_BYTES]
            with self._lock:
                self._sent[number] = min(at + _CHUNK_BYTES, len(content))
                self._tell()

    def _tell(self) -> None:
        self.sending(sum(self._sent.values()), self.size_bytes)


class _Again(Exception):
    """Something failed that another round may bring about."""

    def __init__(self, problem: ServiceProblem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def _may_pass(problem: ServiceProblem) -> bool:
    if isinstance(problem, OperationProblem):
        return False
    return problem.status in AWAY or problem.status == _TOO_MANY or problem.slug in _PASSING


def _is_own(part: PartView) -> bool:
    """Whether a part goes to the service itself."""
    return part.url.startswith("/")


def _checksum(part: PartView, content: bytes) -> dict[str, str]:
    """What the receiver checks the bytes against: RFC 9530, or the one that every S3 takes."""
    if _is_own(part):
        sha256 = base64.b64encode(hashlib.sha256(content).digest()).decode("ascii")
        return {"Content-Digest": f"sha-256=:{sha256}:"}
    md5 = hashlib.md5(content, usedforsecurity=False).digest()
    return {"Content-MD5": base64.b64encode(md5).decode("ascii")}

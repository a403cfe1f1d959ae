"""Which patches are alike; what needs a worker is waited for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
from pydantic import BaseModel

from service.client import paths
from service.client.blobs import Blobs
from service.client.models import FileProgress, quiet
from service.client.operations import Operations, Watch, unwatched
from service.client.transport import Transport, read
from service.schemas.operations import OperationView
from service.schemas.similarity import (
    CompareSet,
    IdentificationView,
    Identify,
    NeighbourView,
    SetView,
)

_ACCEPTED: Final = 202


def patiently(
    transport: Transport,
    method: str,
    path: str,
    *,
    body: BaseModel | None = None,
    watch: Watch = unwatched,
    **rest: Any,
) -> httpx2.Response:
    """Send a request, and again each time an operation that it had to wait for has ended.

    Raises `ServiceProblem` and `OperationProblem`.
    """
    while True:
        response = transport.send(method, path, body=body, **rest)
        if response.status_code != _ACCEPTED:
            return response
        Operations(transport).wait(read(response, OperationView).id, watch=watch)


@dataclass(frozen=True, slots=True)
class Similarity:
    """How alike the service's patches are."""

    transport: Transport

    def neighbours(
        self,
        name: str,
        number: str | int,
        *,
        label: str | None = None,
        sign: str | None = None,
        watch: Watch = unwatched,
    ) -> Iterator[NeighbourView]:
        """The versions that a version is most like, the surest first.

        `sign` is `positive`, `negative` or `any`.
        """
        path = paths.within(paths.patch(name), "versions", number, "similar")
        asked = {"label": label, "sign": sign}
        patiently(self.transport, "GET", path, watch=watch)  # once it is measured, it stays so
        return self.transport.pages(path, NeighbourView, asked)

    def matrix(self, patches: Sequence[str], *, watch: Watch = unwatched) -> SetView:
        """Compare patches each with each, exactly."""
        body = CompareSet(patches=list(patches))
        found = patiently(self.transport, "POST", "/v1/patches/similarity", body=body, watch=watch)
        return read(found, SetView)

    def identify(self, unknown: Identify, *, watch: Watch = unwatched) -> IdentificationView:
        """Say which corruption an uploaded patch file, or a pair of models, is about."""
        asked = self.transport.ask("POST", "/v1/patches/identify", OperationView, body=unknown)
        ended = Operations(self.transport).wait(asked.id, watch=watch)
        return IdentificationView.model_validate(ended.result)

    def identify_file(
        self, file: Path, *, progress: FileProgress = quiet, watch: Watch = unwatched
    ) -> IdentificationView:
        """Upload a patch file, and say which corruption it is about; it is not published."""
        hashing, sending = progress("hash", file.name), progress("send", file.name)
        sent = Blobs(self.transport).upload(file, hashing=hashing, sending=sending)
        return self.identify(Identify(blob=sent.digest), watch=watch)

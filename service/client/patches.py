"""Patches, their versions, and extractions."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.client import lines, paths
from service.client.blobs import Blobs
from service.client.downloads import Downloaded, Progress, fetch, silent
from service.client.models import FileProgress, quiet
from service.client.transport import Transport, read
from service.names import Digest
from service.schemas.fits import FittingBase
from service.schemas.operations import OperationView
from service.schemas.patches import (
    PatchVersionView,
    PatchView,
    PublishPatchVersion,
    RequestExtraction,
    RequestExtractions,
)
from service.schemas.wire import DescribeLine, EditLine, Withdraw

_ACCEPTED = 202


@dataclass(frozen=True, slots=True)
class Patches:
    """The service's patches."""

    transport: Transport

    def listed(
        self, q: str | None = None, *, base: str | None = None, label: str | None = None
    ) -> Iterator[PatchView]:
        """Every patch, or those that match words, a base model or a label."""
        asked = {"q": q, "base": base, "label": label}
        return self.transport.pages("/v1/patches", PatchView, asked)

    def get(self, name: str) -> PatchView:
        """One patch."""
        return self.transport.get(paths.patch(name), PatchView)

    def put(self, name: str, about: DescribeLine | None = None) -> PatchView:
        """Make a patch, or say anew what it is."""
        return self.transport.ask("PUT", paths.patch(name), PatchView, body=about or DescribeLine())

    def edit(self, name: str, change: EditLine) -> PatchView:
        """Change what is said about a patch."""
        return self.transport.ask("PATCH", paths.patch(name), PatchView, body=change)

    def ensure(self, name: str, about: EditLine) -> PatchView:
        """Make the patch if there is none; else change only what `about` says."""
        return lines.ensure(self, name, about)

    def publish(
        self,
        name: str,
        file: Path,
        *,
        profile: Path | None = None,
        progress: FileProgress = quiet,
    ) -> PatchVersionView | OperationView:
        """Upload a patch file made elsewhere and publish it; an operation while it is checked."""
        blobs = Blobs(self.transport)
        digests = [
            blobs.upload(
                one,
                hashing=progress("hash", one.name),
                sending=progress("send", one.name),
                checking=progress("check", one.name),
            ).digest
            for one in (file, profile)
            if one is not None
        ]
        body = PublishPatchVersion(blob=digests[0], profile=digests[1] if profile else None)
        response = self.transport.send("POST", f"{paths.patch(name)}/versions", body=body)
        if response.status_code == _ACCEPTED:
            return read(response, OperationView)
        return read(response, PatchVersionView)

    def extract(
        self, name: str, wanted: RequestExtraction, *, key: str | None = None
    ) -> OperationView:
        """Ask for a patch to be extracted; the same `key` twice is one extraction."""
        return self.transport.ask(
            "POST",
            f"{paths.patch(name)}/extractions",
            OperationView,
            body=wanted,
            headers={"Idempotency-Key": key or str(uuid.uuid4())},
        )

    def extract_many(self, wanted: RequestExtractions, *, key: str | None = None) -> OperationView:
        """Ask for patches of several robust models that share their clean one, in one operation."""
        return self.transport.ask(
            "POST",
            "/v1/extractions",
            OperationView,
            body=wanted,
            headers={"Idempotency-Key": key or str(uuid.uuid4())},
        )

    def versions(self, name: str) -> Iterator[PatchVersionView]:
        """Every version of a patch."""
        return self.transport.pages(f"{paths.patch(name)}/versions", PatchVersionView)

    def version(self, name: str, number: str | int) -> PatchVersionView:
        """One version."""
        return self.transport.get(
            paths.within(paths.patch(name), "versions", number), PatchVersionView
        )

    def bases(self, name: str, number: str | int) -> Iterator[FittingBase]:
        """Every model version that a version fits, newest first."""
        path = paths.within(paths.patch(name), "versions", number, "bases")
        return self.transport.pages(path, FittingBase)

    def download(
        self,
        name: str,
        number: str | int,
        into: Path,
        *,
        expected: Digest | None = None,
        progress: Progress = silent,
    ) -> Downloaded:
        """Fetch the patch file of a version; raises `ServiceProblem` and `NotVerified`."""
        url = paths.within(paths.patch(name), "versions", number, "file")
        found = fetch(self.transport, url, into, expected=expected, progress=progress)
        assert found is not None  # noqa: S101  # no condition was sent that could give a 304
        return found

    def profile(self, name: str, number: str | int) -> dict[str, Any]:
        """The profile of a version: every layer's figures."""
        url = paths.within(paths.patch(name), "versions", number, "profile")
        found: dict[str, Any] = self.transport.send("GET", url).json()
        return found

    def withdraw(self, name: str, number: int, reason: str = "") -> PatchVersionView:
        """Say that a version should no longer be chosen."""
        path = paths.within(paths.patch(name), "versions", number, "withdraw")
        return self.transport.ask("POST", path, PatchVersionView, body=Withdraw(reason=reason))

    def delete_version(self, name: str, number: int) -> None:
        """Delete a version that nothing needs."""
        self.transport.send("DELETE", paths.within(paths.patch(name), "versions", number))

"""Models, their versions and aliases."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.client import lines, paths
from service.client.blobs import Blobs
from service.client.conditions import Seen, conditions
from service.client.downloads import Downloaded, Progress, fetch, silent
from service.client.transport import Transport, read
from service.names import Digest
from service.schemas.fits import FittingPatch
from service.schemas.models import (
    AliasMoveView,
    AliasView,
    ModelVersionView,
    ModelView,
    PublishModelVersion,
    SetAlias,
    TensorView,
)
from service.schemas.operations import OperationView
from service.schemas.wire import DescribeLine, EditLine, Withdraw

_ACCEPTED = 202

FileProgress = Callable[[str, str], Progress]
"""`progress(phase, path)` gives what to tell about that file; phases: "hash", "send", "check"."""


def quiet(phase: str, path: str) -> Progress:  # noqa: ARG001 - the form of FileProgress
    """Show no progress."""
    return silent


@dataclass(frozen=True, slots=True)
class Models:
    """The service's models."""

    transport: Transport

    def listed(self, q: str | None = None) -> Iterator[ModelView]:
        """Every model, or those that match the words `q`."""
        return self.transport.pages("/v1/models", ModelView, {"q": q})

    def get(self, name: str) -> ModelView:
        """One model."""
        return self.transport.get(paths.model(name), ModelView)

    def put(self, name: str, about: DescribeLine | None = None) -> ModelView:
        """Make a model, or say anew what it is."""
        return self.transport.ask("PUT", paths.model(name), ModelView, body=about or DescribeLine())

    def edit(self, name: str, change: EditLine) -> ModelView:
        """Change what is said about a model."""
        return self.transport.ask("PATCH", paths.model(name), ModelView, body=change)

    def ensure(self, name: str, about: EditLine) -> ModelView:
        """Make the model if there is none; else change only what `about` says."""
        return lines.ensure(self, name, about)

    def publish(
        self,
        name: str,
        files: Mapping[str, Path],
        *,
        forward_order: Sequence[str | tuple[str, str]] | None = None,
        progress: FileProgress = quiet,
    ) -> ModelVersionView | OperationView:
        """Upload files and make a version of them; an operation where they need converting.

        `forward_order` names tensors as data passes them; without it the order is known of
        PyTorch checkpoints alone.
        """
        blobs = Blobs(self.transport)
        digests: dict[str, str] = {
            path: blobs.upload(
                file,
                hashing=progress("hash", path),
                sending=progress("send", path),
                checking=progress("check", path),
            ).digest
            for path, file in files.items()
        }
        body = PublishModelVersion(
            files=digests, forward_order=None if forward_order is None else list(forward_order)
        )
        response = self.transport.send("POST", f"{paths.model(name)}/versions", body=body)
        if response.status_code == _ACCEPTED:
            return read(response, OperationView)
        return read(response, ModelVersionView)

    def versions(self, name: str) -> Iterator[ModelVersionView]:
        """Every version of a model."""
        return self.transport.pages(f"{paths.model(name)}/versions", ModelVersionView)

    def version(self, name: str, revision: str | int) -> ModelVersionView:
        """One version, by its number or an alias."""
        return self.transport.get(
            paths.within(paths.model(name), "versions", revision), ModelVersionView
        )

    def tensors(self, name: str, revision: str | int) -> Iterator[TensorView]:
        """Every tensor of a version."""
        path = paths.within(paths.model(name), "versions", revision, "tensors")
        return self.transport.pages(path, TensorView)

    def patches(self, name: str, revision: str | int) -> Iterator[FittingPatch]:
        """Every patch version that fits a version, newest first."""
        path = paths.within(paths.model(name), "versions", revision, "patches")
        return self.transport.pages(path, FittingPatch)

    def download(
        self,
        name: str,
        revision: str | int,
        path: str,
        into: Path,
        *,
        expected: Digest | None = None,
        progress: Progress = silent,
    ) -> Downloaded:
        """Fetch one file of a version; raises `ServiceProblem` and `NotVerified`."""
        url = paths.within(paths.model(name), "versions", revision, "files", path)
        found = fetch(self.transport, url, into, expected=expected, progress=progress)
        assert found is not None  # noqa: S101  # no condition was sent that could give a 304
        return found

    def withdraw(self, name: str, number: int, reason: str = "") -> ModelVersionView:
        """Say that a version should no longer be chosen."""
        path = paths.within(paths.model(name), "versions", number, "withdraw")
        return self.transport.ask("POST", path, ModelVersionView, body=Withdraw(reason=reason))

    def delete_version(self, name: str, number: int) -> None:
        """Delete a version that nothing needs."""
        self.transport.send("DELETE", paths.within(paths.model(name), "versions", number))

    def alias(self, name: str, alias: str, version: int, *, seen: Seen = "nothing") -> AliasView:
        """Let an alias name a version; `seen` is its last move, "nothing" where it is new."""
        path = paths.within(paths.model(name), "aliases", alias)
        return self.transport.ask(
            "PUT", path, AliasView, body=SetAlias(version=version), headers=conditions(seen)
        )

    def alias_history(self, name: str, alias: str) -> Iterator[AliasMoveView]:
        """What an alias named, newest first."""
        path = paths.within(paths.model(name), "aliases", alias, "history")
        return self.transport.pages(path, AliasMoveView)

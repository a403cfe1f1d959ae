"""Recipes: resolved, checked, built; the files that a build gives."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from service import names
from service.client import paths, verify
from service.client.downloads import Downloaded, Progress, fetch, repr_digest, silent
from service.client.operations import Operations, Watch, unwatched
from service.client.similarity import patiently
from service.client.transport import Transport, read
from service.names import Digest
from service.schemas.operations import OperationView
from service.schemas.recipes import (
    BuildFileView,
    BuildView,
    RecipeBody,
    RecipeView,
    RequestBuild,
    ResolveRecipe,
)
from service.schemas.sweeps import RequestSweep, SweepView

Require = Literal["same_base", "same_architecture"]

_ACCEPTED = 202


@dataclass(frozen=True, slots=True)
class Recipes:
    """The service's recipes."""

    transport: Transport

    def resolve(
        self, recipe: RecipeBody | str, *, require: Require = "same_architecture"
    ) -> RecipeView:
        """Resolve a recipe to exact versions, and check that its patches fit."""
        body = ResolveRecipe(recipe=recipe, require=require)
        return self.transport.ask("POST", "/v1/recipes", RecipeView, body=body)

    def compose(
        self,
        recipe: RecipeBody | str,
        *,
        balance: bool = False,
        interference: bool = False,
        require: Require = "same_architecture",
        watch: Watch = unwatched,
    ) -> RecipeView:
        """Resolve a recipe and tell how its patches go together, in `composition`.

        With `balance` the answer is the balanced recipe. Raises `ServiceProblem`, also where the
        patches cannot be balanced, and `OperationProblem`.
        """
        body = ResolveRecipe(
            recipe=recipe, require=require, balance=balance, interference=interference
        )
        found = patiently(self.transport, "POST", "/v1/recipes", body=body, watch=watch)
        return read(found, RecipeView)


@dataclass(frozen=True, slots=True)
class Builds:
    """The service's builds."""

    transport: Transport

    def listed(self, *, file: Digest | None = None) -> Iterator[BuildView]:
        """Every build, newest first, or those that give a patched file of this digest."""
        return self.transport.pages("/v1/builds", BuildView, {"file": file})

    def get(self, build_id: str) -> BuildView:
        """One build, by the hex digits of its recipe's digest."""
        return self.transport.get(_path(build_id), BuildView)

    def request(
        self, recipe: RecipeBody | str, *, require: Require = "same_architecture"
    ) -> BuildView | OperationView:
        """Ask for a recipe to be built: the build if it is ready, else the operation."""
        body = RequestBuild(recipe=recipe, require=require)
        response = self.transport.send("POST", "/v1/builds", body=body)
        if response.status_code == _ACCEPTED:
            return read(response, OperationView)
        return read(response, BuildView)

    def ready(
        self,
        recipe: RecipeBody | str,
        *,
        require: Require = "same_architecture",
        watch: Watch = unwatched,
    ) -> BuildView:
        """Ask for a build and wait until it is ready; raises `OperationProblem`."""
        answer = self.request(recipe, require=require)
        if isinstance(answer, BuildView):
            return answer
        ended = Operations(self.transport).wait(answer.id, watch=watch)
        return self.get(str((ended.result or {})["id"]))

    def sweep(
        self,
        recipes: Sequence[RecipeBody | str],
        *,
        require: Require = "same_architecture",
        watch: Watch = unwatched,
    ) -> list[BuildView]:
        """Have many recipes on one base built in one walk over it, and wait for all of them.

        Raises `OperationProblem`, also for a recipe that could not be carried out, and
        `ServiceProblem`.
        """
        body = RequestSweep(recipes=list(recipes), require=require)
        # Asked again, what is missing after one sweep fails the next one with its reason.
        for _ in range(2):
            response = self.transport.send("POST", "/v1/sweeps", body=body)
            if response.status_code != _ACCEPTED:
                return read(response, SweepView).builds
            Operations(self.transport).wait(read(response, OperationView).id, watch=watch)
        return [self.ready(recipe, require=require) for recipe in recipes]

    def manifest(self, build_id: str) -> dict[str, Any]:
        """What a build is made of, for machines."""
        found: dict[str, Any] = self.transport.send("GET", f"{_path(build_id)}/manifest").json()
        return found

    def weights(
        self, build_id: str, file: BuildFileView, into: Path, *, progress: Progress = silent
    ) -> Downloaded:
        """Fetch one patched weight file, verified; raises `ServiceProblem` and `NotVerified`.

        Where the service does not know the file's own digest yet, its overlay and its undo are
        fetched too, and prove it.
        """
        url = paths.within(_path(build_id), "weights", file.path)
        expected = Digest(file.sha256) if file.sha256 else None

        def check(part: Path, found: Digest) -> None:
            # The service hashes in the background: it may know by now.
            head = self.transport.send("HEAD", url)
            if repr_digest(head.headers) != found:
                self._prove(build_id, file, part)

        fetched = fetch(
            self.transport, url, into, expected=expected, check=check, progress=progress
        )
        assert fetched is not None  # noqa: S101  # no condition was sent that could give a 304
        return fetched

    def _prove(self, build_id: str, file: BuildFileView, part: Path) -> None:
        with TemporaryDirectory(dir=part.parent, prefix=".patchbay-") as folder:
            overlay = self.overlay(build_id, file, Path(folder, "overlay"))
            undo = self.undo(build_id, file, Path(folder, "undo"))
            verify.patched_file(part, overlay.path, undo.path, Digest(file.base_digest))

    def overlay(
        self, build_id: str, file: BuildFileView, into: Path, *, progress: Progress = silent
    ) -> Downloaded:
        """Fetch the changed tensors of one weight file."""
        return self._side(build_id, "overlay", file, into, progress)

    def undo(
        self, build_id: str, file: BuildFileView, into: Path, *, progress: Progress = silent
    ) -> Downloaded:
        """Fetch the base's own bytes of the changed tensors of one weight file."""
        return self._side(build_id, "undo", file, into, progress)

    def _side(
        self,
        build_id: str,
        part: Literal["overlay", "undo"],
        file: BuildFileView,
        into: Path,
        progress: Progress,
    ) -> Downloaded:
        url = paths.within(_path(build_id), part, file.path)
        expected = Digest(file.overlay_digest or "") if part == "overlay" else None
        fetched = fetch(self.transport, url, into, expected=expected, progress=progress)
        assert fetched is not None  # noqa: S101  # no condition was sent that could give a 304
        return fetched


@dataclass(frozen=True, slots=True)
class Weights:
    """Pull-through: weights by reference, built if need be."""

    transport: Transport

    def fetch(
        self, reference: str, into: Path, *, path: str | None = None, progress: Progress = silent
    ) -> Downloaded:
        """Fetch a weight file of a model or of a recipe on it, such as `ns/model@main+fog=0.5`.

        Verified where the service states the file's digest; `Builds.weights` always verifies.
        """
        found = names.model_reference(reference)
        url = paths.within(f"/v1/weights/{found.name}", path)
        params = {"recipe": found.revision} if found.revision else None
        fetched = fetch(self.transport, url, into, params=params, progress=progress)
        assert fetched is not None  # noqa: S101  # no condition was sent that could give a 304
        return fetched


def _path(build_id: str) -> str:
    return paths.within("/v1/builds", build_id.removeprefix("sha256:"))

"""The registry as this benchmark uses it: publish nets, extract patches, pull patched weights."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from safetensors.torch import load_file

from benchmarks.paper.experiments import BALANCED, Case, Signature
from benchmarks.paper.nets import StateDict
from benchmarks.paper.trainings import Nets, Training
from service.client.client import Client
from service.schemas.models import ModelVersionView
from service.schemas.patches import PatchVersionView, RequestExtraction
from service.schemas.recipes import RecipeBody, RecipePart, RecipeView
from service.schemas.wire import EditLine
from service.tensors.selection import layers_json

NAMESPACE: Final = "paper"
LICENSE: Final = "Apache-2.0"


@dataclass
class Registry:
    """A service, the nets that are published there, and the patches extracted so far."""

    client: Client
    nets: Nets
    folder: Path
    _versions: dict[Training, ModelVersionView] = field(default_factory=dict)
    _patches: dict[Signature, PatchVersionView] = field(default_factory=dict)

    def publish(self, training: Training) -> ModelVersionView:
        """The model version of a trained net."""
        if training not in self._versions:
            name = f"{NAMESPACE}/{training.name}"
            self.client.models.ensure(name, EditLine(license=LICENSE))
            version = self.client.models.publish(
                name, {"model.safetensors": self.nets.file(training)}
            )
            assert isinstance(version, ModelVersionView)  # noqa: S101  # safetensors: at once
            self._versions[training] = version
        return self._versions[training]

    def extract(self, signatures: Iterable[Signature]) -> None:
        """Extract the patches that are not there yet: all are asked for, then waited for."""
        asked = {}
        for signature in dict.fromkeys(signatures):
            if signature not in self._patches:
                name = f"{NAMESPACE}/{signature.line}"
                about = EditLine(license=LICENSE, labels=[signature.corruption])
                self.client.patches.ensure(name, about)
                asked[signature] = name, self.client.patches.extract(name, self._wanted(signature))
        for signature, (name, operation) in asked.items():
            result = self.client.operations.wait(operation.id).result
            assert result is not None  # noqa: S101  # an operation that succeeded has one
            self._patches[signature] = self.client.patches.version(name, result["version"])

    def patch(self, signature: Signature) -> PatchVersionView:
        """The patch of a signature that was extracted."""
        return self._patches[signature]

    def resolve(self, case: Case) -> RecipeView:
        """The recipe of a case, named by its digest; its patches must be extracted.

        Raises `ServiceProblem` where the patches cannot be balanced.
        """
        body = RecipeBody(
            base=self.publish(case.base).reference,
            patches=[
                RecipePart(patch=self._patches[signature].reference, scale=scale)
                for signature, scale in case.parts
            ],
        )
        if case.method == BALANCED:
            return self.client.recipes.compose(body, balance=True)
        return self.client.recipes.resolve(body)

    def pull(self, recipe: RecipeView) -> tuple[str, StateDict]:
        """The file that a recipe gives, fetched by HTTP and verified: its digest, its weights."""
        build = self.client.builds.ready(recipe.reference)
        into = self.folder / "pulled.safetensors"
        pulled = self.client.builds.weights(build.id, build.files[0], into)
        return pulled.digest, load_file(into)

    def request(self, recipe: RecipeView) -> None:
        """Have a recipe built without waiting for it."""
        self.client.builds.request(recipe.reference)

    def _wanted(self, signature: Signature) -> RequestExtraction:
        clean, robust, origin = (
            self.publish(net).reference
            for net in (signature.clean, signature.robust, signature.origin)
        )
        return RequestExtraction.model_validate(
            {
                "clean": clean,
                "robust": robust,
                "origin": origin,
                "layers": layers_json(signature.layers),
                "quality": signature.quality,
            }
        )

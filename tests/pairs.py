"""Small models as files in memory, and a bench on which patches are extracted and built."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from service.compute import build, extract
from service.compute.measure import ExtractOptions
from service.compute.pairing import Trio
from service.compute.sources import ModelFiles, PatchSource, WeightFile
from service.layout import patchfile
from service.layout.header import Read, read_header
from service.names import Digest, digest_of, weights_digest

CPU = torch.device("cpu")
Tensors = dict[str, Tensor]


def reader(content: bytes) -> Read:
    """Reads of a file in memory."""
    return lambda start, end: content[start:end]


def model(files: Mapping[str, Tensors], name: str = "model") -> ModelFiles:
    """A model version of the given weight files."""
    stored = {path: save(tensors) for path, tensors in files.items()}
    weights = {
        path: WeightFile(read_header(reader(content), len(content), path), reader(content))
        for path, content in stored.items()
    }
    digest = weights_digest(
        {path: (Digest("sha256:" + "0" * 64), len(content)) for path, content in stored.items()}
    )
    return ModelFiles(weights, digest, f"vision/{name}@1")


def one(tensors: Tensors, path: str = "model.safetensors") -> ModelFiles:
    """A model version of one weight file."""
    return model({path: tensors})


def _network() -> nn.Module:
    """Two convolutions with batch norm, a linear layer and a head; some 25 000 parameters."""
    features = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 32, 3, bias=False),
        nn.BatchNorm2d(32),
    )
    return nn.ModuleDict(
        {"features": features, "mix": nn.Linear(128, 160), "fc": nn.Linear(160, 10)}
    )


def weights(seed: int, *, start: Tensors | None = None, step: float = 0.1) -> Tensors:
    """A state dict; with `start`, one that training might have moved it to."""
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        before = _network().state_dict() if start is None else start
    moved: Tensors = {}
    for name, tensor in before.items():
        if name.endswith("running_var"):
            moved[name] = tensor * (step * torch.randn(tensor.shape, generator=random)).exp()
        elif tensor.is_floating_point():
            moved[name] = tensor + step * torch.randn(tensor.shape, generator=random)
        else:
            moved[name] = tensor + seed
    return moved


@dataclass(frozen=True)
class Three:
    """State dicts of an origin and the two models that come from it."""

    clean: Tensors
    robust: Tensors
    origin: Tensors

    @property
    def trio(self) -> Trio:
        return Trio(one(self.clean), one(self.robust), one(self.origin))

    @property
    def pair(self) -> Trio:
        return Trio(one(self.clean), one(self.robust), None)


@dataclass(frozen=True)
class Extracted:
    """An extraction's result and its files."""

    result: extract.ExtractResult
    content: bytes
    profile: dict[str, Any]

    @property
    def source(self) -> PatchSource:
        read = reader(self.content)
        return PatchSource(patchfile.read(read, len(self.content)), read)


@dataclass(frozen=True)
class Bench:
    """Extracts and builds into a folder of the test's own."""

    folder: Path

    def extract(self, trio: Trio, **options: Any) -> Extracted:
        patch, profile = self.folder / "patch", self.folder / "profile"
        result = extract.extract(
            trio, ExtractOptions(**options), patch, profile, device=CPU, progress=lambda _: None
        )
        return Extracted(result, patch.read_bytes(), json.loads(profile.read_bytes()))

    def build(
        self,
        base: ModelFiles,
        *patches: tuple[PatchSource, str],
        path: str = "model.safetensors",
        device: torch.device = CPU,
    ) -> Tensors:
        """The tensors of an overlay, read by the safetensors library."""
        return load(self.build_file(base, *patches, path=path, device=device))

    def build_file(
        self,
        base: ModelFiles,
        *patches: tuple[PatchSource, str],
        path: str = "model.safetensors",
        device: torch.device = CPU,
    ) -> bytes:
        """An overlay, as it was written."""
        out = self.folder / "overlay"
        result = build.build_overlay(
            base.headers,
            path,
            base.files[path].read,
            [(source, Decimal(scale)) for source, scale in patches],
            out,
            device=device,
            progress=lambda _: None,
        )
        content = out.read_bytes()
        assert (result.digest, result.size_bytes) == (digest_of(content), len(content))
        return content

"""The real service, a model pair in it, and commands run against it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

import service.manage  # noqa: F401  # gives the commands their session
from service.cli import exits
from service.cli.commands import app
from service.client.client import Client
from tests.service_process import ServiceProcess

Tensors = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


Command = Callable[..., Ended]


@pytest.fixture(scope="session")
def served() -> Iterator[ServiceProcess]:
    with ServiceProcess() as service:
        yield service


@pytest.fixture
def client(served: ServiceProcess) -> Iterator[Client]:
    with Client(served.url, served.token) as client:
        yield client


@pytest.fixture
def patchbay(served: ServiceProcess, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command against the service, with the owner's token and --json."""

    def run(*words: object) -> Ended:
        capfd.readouterr()
        asked = [str(word) for word in words]
        token = [] if "--token" in asked else ["--token", served.token]
        code = exits.run(app, [*asked, "--url", served.url, *token, "--json"])
        captured = capfd.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture
def spoken(served: ServiceProcess, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command as `patchbay` does, but prints for people."""

    def run(*words: object) -> Ended:
        capfd.readouterr()
        options = ["--url", served.url, "--token", served.token]
        code = exits.run(app, [*map(str, words), *options])
        captured = capfd.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


def tensors(seed: int) -> Tensors:
    generator = np.random.default_rng(seed)
    shapes = {
        "conv1.weight": (8, 3, 3, 3),
        "conv1.bias": (8,),
        "conv2.weight": (16, 8, 3, 3),
        "fc.weight": (10, 16),
    }
    return {name: generator.standard_normal(s, dtype=np.float32) for name, s in shapes.items()}


def near(base: Tensors, seed: int) -> Tensors:
    return {name: value + tensors(seed)[name] * np.float32(0.05) for name, value in base.items()}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean model and a robust one: as single files, and the same ones as shards."""
    folder = tmp_path_factory.mktemp("models")
    clean = tensors(0)
    for name, whole in (("clean", clean), ("robust", near(clean, 1))):
        save_file(whole, folder / f"{name}.safetensors")
        shards = folder / name
        shards.mkdir()
        first = {n: v for n, v in whole.items() if n.startswith("conv1")}
        save_file(first, shards / "part-1.safetensors")
        save_file({n: v for n, v in whole.items() if n not in first}, shards / "part-2.safetensors")
        (shards / "config.json").write_text('{"model_type": "tiny"}')
    return folder


@pytest.fixture(scope="session")
def published(served: ServiceProcess, models: Path) -> str:
    """The models pushed as namespace `vision`, and a patch `vision/fog` extracted from them."""
    options = ["--url", served.url, "--token", served.token]
    for words in (
        ["push", "vision/net", str(models / "clean.safetensors"), "--license", "MIT"],
        ["push", "vision/net-robust", str(models / "robust.safetensors")],
        ["push", "vision/sharded", str(models / "clean")],
        ["extract", "vision/net", "vision/net-robust", "--patch", "vision/fog", "--all"],
    ):
        assert exits.run(app, [*words, *options]) == 0
    return "vision"

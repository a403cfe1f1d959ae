"""A real service with tiny models of three libraries, and real clients in their environments."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.clients import environments
from tests.e2e.bench import Bench
from tests.service_process import ServiceProcess

PROGRAMS: Final = Path(__file__).parent / "programs"
TIMEOUT_S: Final = 240.0


@dataclass(frozen=True)
class Client:
    """One environment on one service, with a cache of its own."""

    name: str
    service: ServiceProcess
    home: Path

    def program(self, name: str, *words: str) -> Any:
        """Run a program of ours in the environment; answers the JSON that it prints last."""
        done = self.run("python", str(PROGRAMS / f"{name}.py"), *words)
        assert done.returncode == 0, done.stderr[-5000:]
        return json.loads(done.stdout.splitlines()[-1])

    def run(self, command: str, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a program of the environment."""
        return subprocess.run(  # noqa: S603
            [environments.environment(self.name) / "bin" / command, *words],
            env={
                **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
                "HOME": str(self.home),
                "HF_ENDPOINT": self.service.url,
                "HF_TOKEN": self.service.token,
                "HF_HOME": str(self.home / "hf"),
                "NO_COLOR": "1",
                "OMP_NUM_THREADS": "1",
            },
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )


@pytest.fixture(scope="session")
def service() -> Iterator[ServiceProcess]:
    with ServiceProcess() as started:
        yield started


@pytest.fixture(scope="session")
def models(service: ServiceProcess, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The namespace of models `bert`, `resnet` and `mixin`, and the patch `NAME-fog` of each."""
    folder = tmp_path_factory.mktemp("models")
    maker = Client(environments.NEWEST, service, tmp_path_factory.mktemp("maker"))
    done = maker.run("python", str(PROGRAMS / "make_models.py"), str(folder))
    assert done.returncode == 0, done.stderr[-5000:]
    found = Bench(service.client, service.home / "blobs", "clients")
    for made in sorted(folder.iterdir()):
        for side, name in (("clean", made.name), ("robust", f"{made.name}-robust")):
            weights = {path.name: path.read_bytes() for path in sorted((made / side).iterdir())}
            found.model(name, weights | {"docs/card.txt": made.name.encode()})
        found.patch(f"{made.name}-fog", made.name, f"{made.name}-robust")
    return found.namespace


@pytest.fixture
def bench(service: ServiceProcess, models: str) -> Bench:
    """The models, on the service as it runs now: a test may have started it again."""
    return Bench(service.client, service.home / "blobs", models)


@pytest.fixture(params=[environments.NEWEST, *environments.OLDER])
def client(
    request: pytest.FixtureRequest, service: ServiceProcess, models: str, tmp_path: Path
) -> Client:
    """Each huggingface_hub, with an empty cache."""
    _ = models
    return Client(request.param, service, tmp_path)


@pytest.fixture
def newest(service: ServiceProcess, models: str, tmp_path: Path) -> Client:
    """The environment that has the other libraries too, with an empty cache."""
    _ = models
    return Client(environments.NEWEST, service, tmp_path)

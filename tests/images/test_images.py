"""The images' environments, bare but for what their scripts install, at their real work."""

import contextlib
import hashlib
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from safetensors.torch import load_file, save_file

from service.client.client import Client
from service.client.problem import ServiceProblem
from service.embedded.postgres import start_temporary
from service.schemas.models import ModelVersionView
from service.schemas.patches import RequestExtraction
from tests.images.conftest import ROOT, Bare
from tests.pairs import weights
from tests.seaweed import S3Address

# A whole environment is installed within the time of the first test that asks for it.
pytestmark = [pytest.mark.images, pytest.mark.timeout(1200)]

START_S: Final = 90.0
IMPORT_ALL: Final = """
import importlib, pkgutil, service
for module in pkgutil.walk_packages(service.__path__, "service."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        print(error.name)
"""


@dataclass(frozen=True)
class Production:
    """Web and worker out of two environments, on a Postgres and an S3 server."""

    url: str
    token: str
    settings: dict[str, str]
    web_log: Path
    worker_log: Path


# ── the web image ────────────────────────────────────────────────────────────────────────────


def test_the_web_environment_has_no_torch(web: Bare) -> None:
    done = web.run("python", "-c", "import torch")

    assert done.returncode != 0
    assert "No module named 'torch'" in done.stderr


def test_the_web_environment_has_the_command_line(web: Bare) -> None:
    done = web.run("patchbay", "--help")

    assert done.returncode == 0, done.stderr
    assert {"serve", "migrate", "pull"} <= set(done.stdout.split())


def test_the_web_application_is_made_without_torch(web: Bare, tmp_path: Path) -> None:
    make = (
        "import sys, uvicorn\n"
        "from service import standalone\n"
        "from service.app import create_app\n"
        "from service.settings import Settings\n"
        "uvicorn.Config(create_app(Settings())).load()\n"
        "assert 'torch' not in sys.modules\n"
    )
    settings = {
        "PATCHBAY_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        "PATCHBAY_BLOB_URL": str(tmp_path / "blobs"),
    }

    done = web.run("python", "-c", make, settings=settings)

    assert done.returncode == 0, done.stderr


def test_without_a_database_the_web_environment_says_what_to_set(web: Bare, tmp_path: Path) -> None:
    home = {"PATCHBAY_HOME": str(tmp_path / "home")}

    done = web.run("patchbay", "serve", "--no-worker", "--port", "0", settings=home)

    assert done.returncode != 0
    assert "PATCHBAY_DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr


# ── the worker image ─────────────────────────────────────────────────────────────────────────


def test_the_worker_environment_has_the_pinned_torch_for_the_cpu(worker: Bare) -> None:
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = next(line for line in constraints if line.startswith("torch=="))

    done = worker.run("python", "-c", "import torch; print(torch.__version__, torch.version.cuda)")

    assert done.stdout.split() == [f"{pinned.removeprefix('torch==')}+cpu", "None"], done.stderr


def test_the_worker_environment_has_the_worker_command(worker: Bare) -> None:
    done = worker.run("patchbay", "worker", "--help")

    assert done.returncode == 0, done.stderr
    assert "--device" in done.stdout


def test_an_unknown_device_is_refused_before_anything_is_installed(tmp_path: Path) -> None:
    done = subprocess.run(  # noqa: S603
        [ROOT / "docker/install-worker.sh", tmp_path / "environment", "tpu"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "'tpu'" in done.stderr
    assert not (tmp_path / "environment").exists()


# ── both ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("image", ["web", "worker"])
def test_an_environment_has_every_file_of_the_packages(
    image: str, request: pytest.FixtureRequest
) -> None:
    environment: Bare = request.getfixturevalue(image)
    (installed,) = environment.path.glob("lib/python*/site-packages")
    source = environment.path.with_name("context")
    packaged = [
        path.relative_to(source)
        for package in ("service", "migrations")
        for path in (source / package).rglob("*")
        if path.is_file()
    ]

    missing = [str(path) for path in packaged if not (installed / path).is_file()]

    assert not missing


# Each image's modules that cannot be imported lack only what the image leaves out on purpose.
LEFT_OUT = [("web", {"jaxtyping", "numpy", "psutil", "torch"}), ("worker", {"psutil"})]


@pytest.mark.parametrize(("image", "left_out"), LEFT_OUT)
def test_no_module_misses_a_package_but_those_left_out(
    image: str, left_out: set[str], request: pytest.FixtureRequest
) -> None:
    environment: Bare = request.getfixturevalue(image)

    done = environment.run("python", "-c", IMPORT_ALL)

    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= left_out


@pytest.fixture(scope="session")
def production(
    web: Bare, worker: Bare, s3: S3Address, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Production]:
    """Set up as docker-compose.yml does: migrate, then web without a worker, then a worker."""
    folder = tmp_path_factory.mktemp("production")
    home, web_log, worker_log = folder / "home", folder / "web.log", folder / "worker.log"
    with contextlib.ExitStack() as stack:
        settings = {
            "PATCHBAY_DATABASE_URL": stack.enter_context(start_temporary()).url,
            "PATCHBAY_BLOB_URL": f"s3://{s3.bucket}",
            "PATCHBAY_S3_ENDPOINT_URL": s3.endpoint_url,
            "PATCHBAY_HEARTBEAT_S": "1",
            "AWS_ACCESS_KEY_ID": s3.access_key,
            "AWS_SECRET_ACCESS_KEY": s3.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        migrated = web.run("patchbay", "migrate", settings=settings)
        assert migrated.returncode == 0, migrated.stderr
        serve = web.start(
            *("patchbay", "serve", "--no-worker", "--port", "0"),
            settings=settings | {"PATCHBAY_HOME": str(home)},
            log=web_log,
        )
        stack.callback(_end, serve)
        work = worker.start(
            *("patchbay", "worker", "--device", "cpu"), settings=settings, log=worker_log
        )
        stack.callback(_end, work)
        _wait((home / "run" / "url").exists, serve, web_log)
        url = (home / "run" / "url").read_text().strip()
        with Client(url) as client:
            _wait(lambda: _has_worker(client), work, worker_log)
        token = (home / "owner-token").read_text().strip()
        yield Production(url, token, settings, web_log, worker_log)


def test_a_patch_is_extracted_built_and_pulled_through_both(
    production: Production, tmp_path: Path
) -> None:
    clean = weights(1)
    save_file(clean, tmp_path / "clean.safetensors")
    save_file(weights(2, start=clean), tmp_path / "robust.safetensors")
    patched = tmp_path / "patched.safetensors"

    with Client(production.url, production.token) as client:
        for name in ("clean", "robust"):
            client.models.put(f"images/{name}")
            version = client.models.publish(
                f"images/{name}", {"model.safetensors": tmp_path / f"{name}.safetensors"}
            )
            assert isinstance(version, ModelVersionView)
        client.patches.put("images/fog")
        wanted = RequestExtraction(clean="images/clean@1", robust="images/robust@1")
        operation = client.patches.extract("images/fog", wanted)
        client.operations.wait(operation.id, timeout_s=120)
        build = client.builds.ready("images/clean@1+fog=0.5")
        (file,) = build.files
        client.builds.weights(build.id, file, patched)

    found = load_file(patched)
    changed = [name for name, tensor in clean.items() if not found[name].equal(tensor)]
    assert changed
    assert patched.stat().st_size == (tmp_path / "clean.safetensors").stat().st_size
    assert _sha256(patched) != _sha256(tmp_path / "clean.safetensors")


def test_the_health_check_of_the_worker_image_finds_the_worker(
    production: Production, worker: Bare
) -> None:
    check = str(ROOT / "docker/check_worker.py")

    done = worker.run("python", check, settings=production.settings)

    assert done.returncode == 0, done.stderr


def test_the_health_check_of_the_worker_image_fails_on_a_host_without_a_worker(
    production: Production, worker: Bare
) -> None:
    check = ROOT / "docker/check_worker.py"
    elsewhere = f"import socket; socket.gethostname = lambda: 'elsewhere'\n{check.read_text()}"

    done = worker.run("python", "-c", elsewhere, settings=production.settings)

    assert done.returncode == 1
    assert not done.stderr


def test_what_containers_log_is_free_of_tracebacks_and_secrets(
    production: Production, s3: S3Address
) -> None:
    logged = production.web_log.read_text() + production.worker_log.read_text()

    assert "Traceback" not in logged
    assert production.token not in logged
    assert s3.secret_key not in logged


def _has_worker(client: Client) -> bool:
    try:
        return client.readiness().parts.get("worker") == "ok"
    except ServiceProblem:
        return False


def _wait(holds: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not holds():
        assert process.poll() is None, log.read_text()[-5000:]
        assert time.monotonic() < deadline, log.read_text()[-5000:]
        time.sleep(0.1)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    process.kill()
    process.wait()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

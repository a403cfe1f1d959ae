"""A large upload goes on where it was, whoever is killed meanwhile: client, service or store."""

import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.names import digest_of
from tests.seaweed import Seaweed, free_ports
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.outages

MIB = 2**20
CONTENT = random.Random(4).randbytes(34 * MIB)  # noqa: S311  # three parts
DIGEST = digest_of(CONTENT)
PARTS = 3

SLOWLY = """
import sys, time
from pathlib import Path
from service.client.client import Client

first = None
def sending(done, total):
    global first
    if first is None:
        first = done
        print("stood at", done, flush=True)
    time.sleep(float(sys.argv[4]))

with Client(sys.argv[1], sys.argv[2]) as client:
    sent = client.blobs.upload(Path(sys.argv[3]), sending=sending)
print("sent", sent.digest, flush=True)
"""


class Sending:
    """A client in a process of its own, which can be killed."""

    def __init__(self, service: ServiceProcess, file: Path, *, pause_s: float) -> None:
        arguments = [service.url, service.token, str(file), str(pause_s)]
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", SLOWLY, *arguments], stdout=subprocess.PIPE, text=True
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def ended(self) -> list[str]:
        out, _ = self.process.communicate(timeout=200)
        assert self.process.returncode == 0
        return str(out).splitlines()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "large.bin"
    path.write_bytes(CONTENT)
    return path


@contextlib.contextmanager
def on_s3(folder: Path) -> Iterator[tuple[Seaweed, dict[str, str]]]:
    """A store of its own, and the settings by which a service finds it."""
    seaweed = Seaweed(folder)
    seaweed.start()
    address = seaweed.address
    try:
        yield (
            seaweed,
            {
                "PATCHBAY_BLOB_URL": f"s3://{address.bucket}/some/prefix",
                "PATCHBAY_S3_ENDPOINT_URL": address.endpoint_url,
                "AWS_ACCESS_KEY_ID": address.access_key,
                "AWS_SECRET_ACCESS_KEY": address.secret_key,
                "AWS_DEFAULT_REGION": "us-east-1",
            },
        )
    finally:
        seaweed.stop()


def standing(service: ServiceProcess) -> dict[str, Any]:
    """Where the upload stands, as the service says; nothing while it does not answer."""
    body = {"digest": DIGEST, "size_bytes": len(CONTENT)}
    try:
        answer = service.client.post("/v1/uploads", json=body)
    except httpx2.TransportError:
        return {}
    found: dict[str, Any] = answer.json() if answer.status_code in {200, 201} else {}
    return found


def wait_for(true: Callable[[], bool], timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def arrived(service: ServiceProcess) -> int:
    return len(standing(service).get("arrived", []))


def test_on_a_folder_it_outlives_client_and_service(file: Path) -> None:
    with ServiceProcess(port=free_ports(1)[0]) as service:
        first = Sending(service, file, pause_s=0.03)
        wait_for(lambda: arrived(service) >= 1)
        first.kill()
        left = arrived(service)
        second = Sending(service, file, pause_s=0.03)
        wait_for(lambda: arrived(service) > left)
        service.kill_all()
        service.start()
        told = second.ended()

        assert 1 <= left < PARTS
        assert told[0] == f"stood at {bytes_of(left, told)}"
        assert told[-1] == f"sent {DIGEST}"
        assert service.client.get(f"/v1/blobs/{DIGEST}").content == CONTENT
        assert not list((service.home / "blobs" / "tmp").iterdir())


def bytes_of(parts: int, told: list[str]) -> int:
    """How many bytes so many parts hold: the last one is short, and may be among them."""
    last = len(CONTENT) - (PARTS - 1) * 16 * MIB
    full = parts * 16 * MIB
    return full if told[0] == f"stood at {full}" else full - 16 * MIB + last


def test_on_s3_it_outlives_client_service_and_store(file: Path, tmp_path: Path) -> None:
    with (
        on_s3(tmp_path / "weed") as (seaweed, environment),
        ServiceProcess(environment, port=free_ports(1)[0]) as service,
    ):
        first = Sending(service, file, pause_s=0.03)
        wait_for(lambda: arrived(service) >= 1)
        to_store = standing(service)["parts"][0]["url"].startswith(seaweed.address.endpoint_url)
        first.kill()
        left = arrived(service)
        second = Sending(service, file, pause_s=0.03)
        wait_for(lambda: arrived(service) > left)
        seaweed.kill()
        service.kill_all()
        seaweed.start()
        service.start()
        told = second.ended()

        assert to_store
        assert 1 <= left < PARTS
        assert told[0] == f"stood at {bytes_of(left, told)}"
        assert told[-1] == f"sent {DIGEST}"
        whole = service.client.get(f"/v1/blobs/{DIGEST}", follow_redirects=True)
        assert whole.content == CONTENT

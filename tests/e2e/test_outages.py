"""The parts behind the service gone for a while: the disk, the database, the store."""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from service.embedded.home import Home
from service.embedded.postgres import EmbeddedPostgres
from tests.e2e.bench import Bench, refused
from tests.seaweed import Seaweed
from tests.service_process import ServiceProcess

pytestmark = [pytest.mark.outages, pytest.mark.xdist_group("service that ends")]

GONE_S = 10.0


# ── a full disk ──────────────────────────────────────────────────────────────────────────────


def _full(service: ServiceProcess, content: bytes) -> str:
    """Upload to a service without room, see it refused and the service alive; the detail."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    blobs = Path(service.environment["PATCHBAY_BLOB_URL"])

    with service.client_with(_token(service)) as client:
        answer = client.put(f"/v1/blobs/{digest}", content=content)
        absent = client.head(f"/v1/blobs/{digest}")
        alive = client.get("/readyz")

    problem = refused(answer, 507, "disk-full", "no room", "nothing was kept", "free space")
    assert (absent.status_code, alive.status_code) == (404, 200)
    name = digest.removeprefix("sha256:")
    assert not (blobs / "sha256" / name[:2] / name).exists()
    assert list((blobs / "tmp").iterdir()) == []
    return str(problem["detail"])


def _token(service: ServiceProcess) -> str:
    return service.environment["PATCHBAY_TOKEN"]


@pytest.fixture(scope="module")
def outside() -> Iterator["Outside"]:
    """A database and a folder that the tests hold in their own hands."""
    folder = Path(tempfile.mkdtemp(prefix="patchbay-test-"))
    with Home.open(folder) as home:
        database = Database(home)
        database.start()
        try:
            yield Outside(database, home)
        finally:
            database.stop()
            shutil.rmtree(folder)


@dataclass
class Database:
    """A Postgres to stop and start again at the same address."""

    home: Home
    server: EmbeddedPostgres | None = None

    def start(self) -> None:
        self.server = EmbeddedPostgres.start(self.home, fsync=False)

    def kill(self) -> None:
        assert self.server is not None
        self.server.process.kill()
        self.server.process.wait()

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop()


@dataclass
class Outside:
    database: Database
    home: Home

    @property
    def environment(self) -> dict[str, str]:
        assert self.database.server is not None
        return {
            "PATCHBAY_DATABASE_URL": self.database.server.url,
            "PATCHBAY_BLOB_URL": str(self.home.blobs),
        }


@pytest.fixture(scope="module")
def token(outside: Outside) -> str:
    """The owner's token of the database; the first service on it makes it."""
    with ServiceProcess(outside.environment, worker=False) as first:
        return first.token


def test_an_upload_into_the_reserve_is_refused(outside: Outside, token: str) -> None:
    reserve = {"PATCHBAY_DISK_RESERVE_BYTES": str(2**60), "PATCHBAY_TOKEN": token}

    with ServiceProcess({**outside.environment, **reserve}, worker=False) as service:
        told = _full(service, os.urandom(100_000))

    assert "reserve" in told


def test_an_upload_over_the_limit_of_a_file_is_refused(outside: Outside, token: str) -> None:
    limited = ["prlimit", f"--fsize={2**20}"]
    environment = {**outside.environment, "PATCHBAY_TOKEN": token}

    with ServiceProcess(environment, before=limited, worker=False) as service:
        _full(service, os.urandom(3 * 2**20))
        small = os.urandom(1000)
        digest = f"sha256:{hashlib.sha256(small).hexdigest()}"
        with service.client_with(token) as client:
            assert client.put(f"/v1/blobs/{digest}", content=small).status_code == 201
            assert client.get(f"/v1/blobs/{digest}").content == small


# ── a store and a database that go and come back ─────────────────────────────────────────────


@pytest.fixture(scope="module")
def seaweed() -> Iterator[Seaweed]:
    folder = Path(tempfile.mkdtemp(prefix="patchbay-test-"))
    server = Seaweed(folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def whole(outside: Outside, token: str, seaweed: Seaweed) -> Iterator[Bench]:
    """A service with a worker whose database and S3 store lie outside; `clean` and `fog` on it."""
    address = seaweed.address
    environment = {
        **outside.environment,
        "PATCHBAY_BLOB_URL": f"s3://{address.bucket}/blobs",
        "PATCHBAY_S3_ENDPOINT_URL": address.endpoint_url,
        "AWS_ACCESS_KEY_ID": address.access_key,
        "AWS_SECRET_ACCESS_KEY": address.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with ServiceProcess(environment) as service, service.client_with(token) as client:
        bench = Bench(client, Path("/nowhere"))
        bench.pair()
        yield bench


def _unavailable(answer: httpx2.Response, slug: str) -> None:
    refused(answer, 503, slug, "try again shortly")
    assert int(answer.headers["retry-after"]) >= 1


def _well(bench: Bench, recipe: str) -> None:
    """Builds and serves, within some seconds, without a restart."""
    deadline = time.monotonic() + 60
    while (answer := bench.weights(recipe)).status_code == 503:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.5)
    assert answer.status_code == 200, answer.text


def test_a_database_that_is_gone_for_ten_seconds(whole: Bench, outside: Outside) -> None:
    before = whole.get(f"{whole.of('models', 'clean')}/versions")
    outside.database.kill()
    back_at = time.monotonic() + GONE_S
    try:
        asked = [
            whole.client.get("/v1/models"),
            whole.client.put(whole.of("models", "lost"), json={}),
            whole.weights("main+fog=0.25"),
            whole.client.post("/v1/recipes", json={"recipe": whole.ref("clean@main+fog=0.25")}),
            whole.client.put("/v1/blobs/sha256:" + "0" * 64, content=b"lost"),
        ]
        ready, healthy = whole.client.get("/readyz"), whole.client.get("/healthz")
        time.sleep(max(0.0, back_at - time.monotonic()))
    finally:
        outside.database.start()

    for answer in asked:
        _unavailable(answer, "database-unavailable")
    refused(ready, 503, "not-ready", "database (does not answer)")
    assert healthy.status_code == 200
    _well(whole, "main+fog=0.25")
    assert whole.get(f"{whole.of('models', 'clean')}/versions") == before
    assert whole.client.get(whole.of("models", "lost")).status_code == 404


def test_an_s3_store_that_is_gone_for_a_while(whole: Bench, seaweed: Seaweed) -> None:
    _well(whole, "main+fog=1")
    blob = f"sha256:{hashlib.sha256(b'late').hexdigest()}"
    seaweed.kill()
    try:
        pulled = whole.weights("main+fog=1")
        stored = whole.client.put(f"/v1/blobs/{blob}", content=b"late")
        ready = whole.client.get("/readyz")
        listed = whole.client.get("/v1/models")
        # A build whose base cannot be read waits for the store.
        asked = whole.client.post("/v1/builds", json={"recipe": whole.ref("clean@main+fog=2")})
    finally:
        seaweed.start()

    _unavailable(pulled, "store-unavailable")
    _unavailable(stored, "store-unavailable")
    refused(ready, 503, "not-ready", "store")
    assert (listed.status_code, asked.status_code) == (200, 202), asked.text
    assert whole.client.head(f"/v1/blobs/{blob}").status_code == 404
    _well(whole, "main+fog=1")
    assert whole.ended(asked)["state"] == "succeeded"
    assert whole.client.put(f"/v1/blobs/{blob}", content=b"late").status_code == 201


def test_a_folder_of_blobs_that_is_gone_for_a_while(outside: Outside, token: str) -> None:
    content = os.urandom(1000)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    away = outside.home.blobs.with_name("away")

    with (
        ServiceProcess(outside.environment, worker=False) as service,
        service.client_with(token) as client,
    ):
        assert client.put(f"/v1/blobs/{digest}", content=content).status_code == 201
        outside.home.blobs.rename(away)
        try:
            read = client.get(f"/v1/blobs/{digest}")
            stored = client.put("/v1/blobs/sha256:" + "0" * 64, content=b"x")
            ready = client.get("/readyz")
        finally:
            away.rename(outside.home.blobs)
        again = client.get(f"/v1/blobs/{digest}")

    for answer in (read, stored):
        _unavailable(answer, "store-unavailable")
        assert str(outside.home.path) not in answer.text
    refused(ready, 503, "not-ready", "store (its folder is gone)")
    assert again.content == content

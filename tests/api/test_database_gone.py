import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from service import queue
from service.app import create_app
from service.db import engine as engines
from service.db import migrate
from service.embedded.home import Home
from service.embedded.postgres import EmbeddedPostgres
from service.registry import access, operations
from service.registry.access import OWNER
from service.schemas.operations import Scope
from service.settings import Settings

CONTENT = b"some weights"
BLOB = "/v1/blobs/sha256:" + hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def home() -> Iterator[Home]:
    # Not under `tmp_path`: as root, Postgres' own user may not pass there.
    with tempfile.TemporaryDirectory(prefix="patchbay-") as path, Home.open(Path(path)) as opened:
        yield opened


def test_a_database_that_is_gone_for_a_while_is_told_and_missed_no_longer(
    home: Home, tmp_path: Path
) -> None:
    server = EmbeddedPostgres.start(home, fsync=False)
    migrate.upgrade(server.url)
    settings = Settings(database_url=SecretStr(server.url), blob_url=str(tmp_path / "blobs"))
    headers = {"Authorization": f"Bearer {_committed(server.url, _token)}"}
    operation_id = _committed(server.url, _operation)
    try:
        with TestClient(create_app(settings), headers=headers) as client:
            assert client.get("/v1/operations").status_code == 200

            server.process.kill()
            server.process.wait()
            listed = client.get("/v1/operations")
            sent = client.put(BLOB, content=CONTENT)
            waited = client.get(f"/v1/operations/{operation_id}", headers={"Prefer": "wait=5"})
            ready = client.get("/readyz")
            metrics = client.get("/metrics")
            alive = client.get("/healthz")
            server = EmbeddedPostgres.start(home, fsync=False)

            assert _status_soon(client, "/v1/operations") == 200
            assert client.put(BLOB, content=CONTENT).status_code == 201
            cancelled = client.post(f"/v1/operations/{operation_id}/cancel")
    finally:
        server.stop()

    for refused in (listed, sent, waited):
        assert refused.status_code == 503
        assert refused.json()["type"] == "/problems/database-unavailable"
        assert int(refused.headers["retry-after"]) > 0
        assert server.url not in refused.text
    assert (ready.status_code, ready.json()["parts"]["database"]) == (503, "does not answer")
    assert "patchbay_http_requests_total" in metrics.text
    assert alive.status_code == 200
    assert cancelled.json()["state"] == "cancelled"


def _committed(url: str, work: Callable[[Session], str]) -> str:
    engine = engines.create(url, application="tests")
    with engines.sessions(engine).begin() as session:
        done = work(session)
    engine.dispose()
    return done


def _token(session: Session) -> str:
    return access.mint(session, "test", [Scope.ADMIN], by=OWNER)[1]


def _operation(session: Session) -> str:
    limits = operations.Limits()
    return operations.request(session, "build", "r", {}, by=OWNER, on=queue.GPU, limits=limits).id


def _status_soon(client: TestClient, url: str, timeout_s: float = 20) -> int:
    deadline = time.monotonic() + timeout_s
    while (answer := client.get(url)).status_code == 503 and time.monotonic() < deadline:
        time.sleep(0.1)
    return answer.status_code

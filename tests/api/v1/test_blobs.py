import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from service.http import receiving
from service.schemas.operations import Scope
from service.settings import Settings
from tests.webserver import Served

MIB = 2**20
CONTENT = bytes(range(256)) * 4096 * 2  # 2 MiB
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()

Bearer = Callable[..., dict[str, str]]


@pytest.fixture
def publisher(bearer: Bearer) -> dict[str, str]:
    return bearer(Scope.PUBLISH)


def stored(folder: Path) -> list[str]:
    """Everything in the store, whole or not."""
    return sorted(path.name for path in (folder / "blobs").rglob("*") if path.is_file())


def test_a_blob_is_stored_once(
    client: TestClient, publisher: dict[str, str], tmp_path: Path
) -> None:
    first = client.put(f"/v1/blobs/{DIGEST}", content=CONTENT, headers=publisher)
    again = client.put(f"/v1/blobs/{DIGEST}", content=CONTENT, headers=publisher)

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() == {"digest": DIGEST, "size_bytes": len(CONTENT)}
    assert first.headers["location"] == f"/v1/blobs/{DIGEST}"
    assert stored(tmp_path) == [DIGEST.removeprefix("sha256:")]


def test_a_blob_may_come_without_an_announced_size(
    client: TestClient, publisher: dict[str, str]
) -> None:
    pieces = (CONTENT[at : at + 70_000] for at in range(0, len(CONTENT), 70_000))

    answer = client.put(f"/v1/blobs/{DIGEST}", content=pieces, headers=publisher)

    assert answer.status_code == 201


def test_an_empty_blob_is_a_blob(client: TestClient, publisher: dict[str, str]) -> None:
    digest = "sha256:" + hashlib.sha256(b"").hexdigest()

    answer = client.put(f"/v1/blobs/{digest}", content=b"", headers=publisher)

    assert (answer.status_code, answer.json()["size_bytes"]) == (201, 0)


def test_bytes_that_are_not_what_their_name_says_are_not_kept(
    client: TestClient, publisher: dict[str, str], tmp_path: Path
) -> None:
    answer = client.put(f"/v1/blobs/{DIGEST}", content=CONTENT[:-1] + b"x", headers=publisher)

    assert answer.status_code == 422
    assert answer.json()["type"] == "/problems/digest-mismatch"
    assert stored(tmp_path) == []


def test_a_name_that_is_no_digest_is_refused(client: TestClient, publisher: dict[str, str]) -> None:
    answer = client.put("/v1/blobs/sha256:abc", content=b"", headers=publisher)

    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/bad-digest")


def test_only_who_may_publish_stores_blobs(client: TestClient, bearer: Bearer) -> None:
    nobody = client.put(f"/v1/blobs/{DIGEST}", content=b"")
    reader = client.put(f"/v1/blobs/{DIGEST}", content=b"", headers=bearer(Scope.READ))

    assert (nobody.status_code, nobody.json()["type"]) == (401, "/problems/token-missing")
    assert (reader.status_code, reader.json()["type"]) == (403, "/problems/scope-missing")


@pytest.mark.parametrize("announced", [True, False])
def test_a_blob_over_the_limit_is_refused(
    client: TestClient, publisher: dict[str, str], tmp_path: Path, *, announced: bool
) -> None:
    large = b"\0" * (5 * MIB)
    content = large if announced else iter([large[:MIB]] * 5)

    answer = client.put(f"/v1/blobs/{DIGEST}", content=content, headers=publisher)

    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/upload-too-large")
    assert stored(tmp_path) == []


def test_a_store_that_is_gone_is_told_and_missed_no_longer_once_back(
    client: TestClient, publisher: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")
    gone = client.put(f"/v1/blobs/{DIGEST}", content=CONTENT, headers=publisher)
    (tmp_path / "elsewhere").rename(tmp_path / "blobs")
    back = client.put(f"/v1/blobs/{DIGEST}", content=CONTENT, headers=publisher)

    assert (gone.status_code, gone.json()["type"]) == (503, "/problems/store-unavailable")
    assert int(gone.headers["retry-after"]) > 0
    assert back.status_code == 201


def test_a_blob_that_the_store_lost_may_be_sent_again(
    client: TestClient, publisher: dict[str, str], tmp_path: Path
) -> None:
    client.put(f"/v1/blobs/{DIGEST}", content=CONTENT, headers=publisher)
    next((tmp_path / "blobs").rglob(DIGEST.removeprefix("sha256:"))).unlink()

    answer = client.put(f"/v1/blobs/{DIGEST}", content=CONTENT, headers=publisher)

    assert answer.status_code == 200
    assert stored(tmp_path) == [DIGEST.removeprefix("sha256:")]


def test_a_blob_is_read_whole_in_part_and_by_its_head(
    client: TestClient, publisher: dict[str, str]
) -> None:
    url = f"/v1/blobs/{DIGEST}"
    client.put(url, content=CONTENT, headers=publisher)

    whole, head_alone = client.get(url), client.head(url)
    part = client.get(url, headers={"Range": "bytes=100-299"})
    known = client.get(url, headers={"If-None-Match": whole.headers["etag"]})

    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert whole.headers["cache-control"] == "max-age=31536000, immutable"
    assert head_alone.headers["content-length"] == str(len(CONTENT))
    assert (part.status_code, part.content) == (206, CONTENT[100:300])
    assert known.status_code == 304


def test_a_blob_that_nobody_stored_is_not_found(client: TestClient) -> None:
    answer = client.get(f"/v1/blobs/{DIGEST}")

    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/blob-not-found")
    assert client.head(f"/v1/blobs/{DIGEST}").status_code == 404


class TestOnAFullDisk:
    @pytest.fixture
    def settings(self, own_database_url: str, tmp_path: Path) -> Settings:
        return Settings(
            database_url=SecretStr(own_database_url),
            blob_url=str(tmp_path / "blobs"),
            disk_reserve_bytes=2**60,
        )

    def test_an_upload_is_refused_and_the_service_goes_on(
        self, client: TestClient, publisher: dict[str, str], tmp_path: Path
    ) -> None:
        answer = client.put(f"/v1/blobs/{DIGEST}", content=CONTENT, headers=publisher)

        assert (answer.status_code, answer.json()["type"]) == (507, "/problems/disk-full")
        assert stored(tmp_path) == []
        assert client.get("/readyz").status_code == 200


class TestOnARealConnection:
    @pytest.fixture
    def connection(self, served: Served) -> Iterator[socket.socket]:
        with socket.create_connection((served.host, served.port), timeout=10) as opened:
            yield opened

    def test_a_body_cut_off_leaves_nothing(
        self,
        served: Served,
        connection: socket.socket,
        publisher: dict[str, str],
        tmp_path: Path,
    ) -> None:
        connection.sendall(head(publisher, len(CONTENT)) + CONTENT[: MIB + 500_000])
        wait_for(lambda: stored(tmp_path) != [])  # the first piece has reached the store

        connection.close()

        wait_for(lambda: stored(tmp_path) == [])
        assert httpx2.get(f"{served.url}/readyz").status_code == 200

    def test_a_body_that_stalls_is_cut_off(
        self,
        connection: socket.socket,
        publisher: dict[str, str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(receiving, "STALLED_AFTER_S", 0.3)

        connection.sendall(head(publisher, len(CONTENT)) + CONTENT[:1000])

        assert connection.recv(100).startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert stored(tmp_path) == []

    def test_two_may_send_the_same_blob_at_once(
        self, served: Served, publisher: dict[str, str], tmp_path: Path
    ) -> None:
        url = f"{served.url}/v1/blobs/{DIGEST}"

        with ThreadPoolExecutor(2) as pool:
            sent = [
                pool.submit(httpx2.put, url, content=CONTENT, headers=publisher) for _ in range(2)
            ]

        assert {answer.result().status_code for answer in sent} <= {200, 201}
        assert stored(tmp_path) == [DIGEST.removeprefix("sha256:")]

    def test_a_known_blob_is_not_asked_for_again(
        self, served: Served, connection: socket.socket, publisher: dict[str, str]
    ) -> None:
        url = f"{served.url}/v1/blobs/{DIGEST}"
        assert httpx2.put(url, content=CONTENT, headers=publisher).status_code == 201

        connection.sendall(head(publisher | {"Expect": "100-continue"}, len(CONTENT)))

        assert connection.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")

    def test_an_unknown_blob_is_asked_for(
        self, connection: socket.socket, publisher: dict[str, str]
    ) -> None:
        connection.sendall(head(publisher | {"Expect": "100-continue"}, len(CONTENT)))

        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n")
        connection.sendall(CONTENT)
        assert connection.recv(100).startswith(b"HTTP/1.1 201 Created\r\n")

    def test_a_refused_upload_leaves_the_connection_usable(
        self, served: Served, bearer: Bearer
    ) -> None:
        with httpx2.Client(base_url=served.url, headers=bearer(Scope.READ)) as client:
            refused = client.put(f"/v1/blobs/{DIGEST}", content=CONTENT)
            after = client.get("/healthz")

        assert (refused.status_code, after.status_code) == (403, 200)


def head(headers: dict[str, str], size_bytes: int) -> bytes:
    lines = [f"PUT /v1/blobs/{DIGEST} HTTP/1.1", "Host: test", f"Content-Length: {size_bytes}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def wait_for(true: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)

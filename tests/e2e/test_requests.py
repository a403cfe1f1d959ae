"""Requests that are wrong in themselves, and how each kind of wrong is told."""

import hashlib
import json
import os
import socket
import subprocess
import time
from pathlib import Path

import httpx2
import pytest

from tests.e2e.bench import Bench, no_trace, refused
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.xdist_group("service")

LENGTH = 3 * 2**20


def _send(service: ServiceProcess, text: str, body: bytes = b"") -> socket.socket:
    """Open a connection and send a request by hand; {auth} in it stands for our token."""
    url = httpx2.URL(service.url)
    connection = socket.create_connection((url.host, url.port), timeout=20)
    head = text.replace("{auth}", f"Host: x\r\nAuthorization: Bearer {service.token}")
    connection.sendall(head.replace("\n", "\r\n").replace("\r\r\n", "\r\n").encode() + body)
    return connection


def _upload_head(digest: str, length: int) -> str:
    return f"PUT /v1/blobs/{digest} HTTP/1.1\n{{auth}}\nContent-Length: {length}\n\n"


def test_a_body_that_the_client_cuts_off_leaves_nothing(
    service: ServiceProcess, bench: Bench
) -> None:
    content = os.urandom(LENGTH)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"

    with bench.nothing_left():
        connection = _send(service, _upload_head(digest, LENGTH), content[: LENGTH - 5])
        _until(lambda: any((bench.blobs / "tmp").iterdir()))
        connection.close()
        _until(lambda: not any((bench.blobs / "tmp").iterdir()))

    refused(bench.client.get(f"/v1/blobs/{digest}"), 404, "blob-not-found", digest)
    assert bench.client.put(f"/v1/blobs/{digest}", content=content).status_code == 201


def test_a_client_that_stops_sending_half_way_is_told(
    service: ServiceProcess, bench: Bench
) -> None:
    digest = "sha256:" + "3" * 64

    with bench.nothing_left(), _send(service, _upload_head(digest, 1000), b"x" * 400) as half:
        half.shutdown(socket.SHUT_WR)
        answer = half.makefile("rb").read()

    # Without an answer it knows as well: what it gets must not look like success.
    assert b"HTTP/1.1 2" not in answer
    assert bench.client.get("/healthz").status_code == 200


def test_a_body_shorter_than_its_digest_says_is_refused(bench: Bench) -> None:
    content = os.urandom(5000)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"

    with bench.nothing_left():
        answer = bench.client.put(f"/v1/blobs/{digest}", content=content[:4000])

    refused(answer, 422, "digest-mismatch", digest, "send them again")


def _until(holds: object, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    "text",
    [
        "NONSENSE\n\n",
        "GET /healthz HTTP/9.9\n{auth}\n\n",
        "POST /v1/recipes HTTP/1.1\n{auth}\nContent-Length: abc\n\n",
        "POST /v1/recipes HTTP/1.1\n{auth}\nTransfer-Encoding: chunked\n\nZZZ\n",
        "GET /v1/models?limit=1 HTTP/1.1\n{auth}\nX: " + "a" * 200_000 + "\n\n",
    ],
)
def test_what_is_not_http_costs_the_connection_and_nothing_else(
    service: ServiceProcess, bench: Bench, text: str
) -> None:
    with _send(service, text) as connection:
        connection.shutdown(socket.SHUT_WR)
        try:
            answer = connection.makefile("rb").read()
        except ConnectionResetError:
            answer = b""

    assert b" 500 " not in answer
    no_trace(answer.decode("latin-1"))
    assert bench.client.get("/healthz").status_code == 200


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_over_the_limit_is_refused(bench: Bench, announced: bool) -> None:  # noqa: FBT001
    body = json.dumps({"card": "x" * 2**20}).encode()

    with bench.nothing_left():
        answer = bench.client.put(
            bench.of("models", "net"),
            content=body if announced else iter([body[:600_000], body[600_000:]]),
            headers={"Content-Type": "application/json"},
        )

    refused(answer, 413, "upload-too-large", str(2**20))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "JSON"),
        (b'{"card": 7}', "card"),
        (b'{"crad": "typo"}', "crad"),
        (b"[]", "body"),
        (b'{"card": "\xff"}', ""),
        (b'{"card": "a\\u0000b"}', "NUL"),
        (b'{"card": "\\ud800"}', ""),
        (b'{"labels": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", ""),
        (b'{"labels": ["no spaces please"]}', "labels"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(bench: Bench, body: bytes, told: str) -> None:
    with bench.nothing_left():
        answer = bench.client.put(
            bench.of("models", "net"), content=body, headers={"Content-Type": "application/json"}
        )

    assert answer.status_code in {400, 422}, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert told in answer.json()["detail"]
    no_trace(answer.text)


def test_an_address_that_does_not_exist_is_a_problem(bench: Bench) -> None:
    refused(bench.client.get("/v1/nothing"), 404, "about:blank", "/v1/nothing", "openapi.json")


def test_a_method_that_an_address_does_not_take_is_a_problem(bench: Bench) -> None:
    answer = bench.client.delete("/v1/builds")

    refused(answer, 405, "about:blank", "DELETE", "use GET, POST")
    assert answer.headers["allow"] == "GET, POST"


@pytest.mark.parametrize(
    "address",
    [
        "/v1/models?limit=0",
        "/v1/models?limit=x",
        "/v1/models?cursor=%%%",
        "/v1/builds?cursor=WzEsMl0",
        "/v1/builds/zz",
        "/v1/tokens?cursor=bnVsbA",
        "/v1/tokens?cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OQ",
        "/v1/blobs/sha256:short",
        "/v1/operations/%00",
        "/v1/models/a%00b/net",
        "/v1/models?q=%00",
        "/v1/models?label=%00",
        "/v1/patches?base=x",
        "/v1/recipes/sha256:0",
        "/v1/problems/x",
        "/problems/nothing",
        "/v1/models/" + "n" * 3000 + "/net",
        "/v1/channels/a/b/moves?cursor=MS41",
        "/v1/patches/a/b/versions/99999999999999999999",
        "/v1/models/a/b/versions/99999999999999999999",
        "/v1/weights/a/b?recipe=99999999999999999999",
        "/v1/weights/a/b/%2e%2e/%2e%2e/x",
    ],
)
def test_a_parameter_out_of_range_is_told_and_never_our_fault(bench: Bench, address: str) -> None:
    answer = bench.client.get(address)

    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    no_trace(answer.text)


def test_a_damaged_blob_is_our_failure_told_without_a_trace(bench: Bench) -> None:
    bench.describe("models", "net")
    content = os.urandom(100)
    digest = bench.upload(content)
    name = digest.removeprefix("sha256:")
    (bench.blobs / "sha256" / name[:2] / name).write_bytes(content[:4])

    answer = bench.publish("net", {"net.safetensors": digest})
    read = bench.client.get(f"/v1/blobs/{digest}")

    for told in (answer, read):
        refused(told, 500, "damaged-blob", digest, "upload it again")
    assert bench.get(f"{bench.of('models', 'net')}/versions")["items"] == []
    assert bench.client.put(f"/v1/blobs/{digest}", content=content).status_code in {200, 201}
    assert bench.client.get(f"/v1/blobs/{digest}").content == content


# ── connections ──────────────────────────────────────────────────────────────────────────────


def test_answers_on_one_connection_wait_for_no_acknowledgement(service: ServiceProcess) -> None:
    # Without TCP_NODELAY each took 44 ms (Kludex/uvicorn#3149); the quickest of many tells it from
    # a machine that is busy.
    url = httpx2.URL(service.url)
    took = []
    with socket.create_connection((url.host, url.port), timeout=20) as connection:
        for _ in range(30):
            began = time.perf_counter()
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = connection.recv(65536)
            while not answer.endswith(b"}"):
                answer += connection.recv(65536)
            took.append(time.perf_counter() - began)

    assert min(took) < 0.035


# ── curl ─────────────────────────────────────────────────────────────────────────────────────


def test_a_literal_curl_with_a_plus_in_its_query_gets_the_patched_file(
    service: ServiceProcess, pair: Bench, tmp_path: Path
) -> None:
    out = tmp_path / "patched.safetensors"
    url = f"{service.url}{pair.of('weights', 'clean')}?recipe=main+fog=0.75"

    done = subprocess.run(  # noqa: S603
        ["curl", "-fsS", "-H", f"Authorization: Bearer {service.token}", "-o", str(out), url],  # noqa: S607
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    escaped = pair.client.get(f"{pair.of('weights', 'clean')}?recipe=main%2Bfog%3D0.75")
    assert out.read_bytes() == escaped.content
    assert escaped.content != pair.weights("main").content

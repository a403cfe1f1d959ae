"""What our HTTP server takes of a client that means no good, before an application sees it."""

import contextlib
import socket
import time
from collections.abc import Iterator

import httpx2
import pytest
from fastapi import FastAPI

from service.http import protocol
from service.http.protocol import HEAD_BYTES, SENT_AHEAD
from tests.webserver import Served, serving

KIB = 1024
SOON_S = 1.0
"""A time for heads that a test can wait for."""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    app = FastAPI()

    @app.get("/")
    async def small() -> str:
        return "well"

    with serving(app) as running:
        yield running


def connect(served: Served) -> socket.socket:
    return socket.create_connection((served.host, served.port), timeout=20)


def answer(client: socket.socket) -> bytes:
    """All that comes until the server closes, or cuts the connection off."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(KIB * KIB):
            parts.append(part)
    return b"".join(parts)


def sent(client: socket.socket, pieces: Iterator[bytes], limit: int) -> int:
    """How many bytes the server lets the client send, at most about `limit`."""
    total = 0
    with contextlib.suppress(ConnectionError):
        while total < limit:
            piece = next(pieces)
            client.sendall(piece)
            total += len(piece)
    return total


def lines() -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        yield f"X-{number}: {'a' * 1000}\r\n".encode()


def one_line() -> Iterator[bytes]:
    yield b"X: "
    while True:
        yield b"a" * 1000


@pytest.mark.parametrize("pieces", [lines, one_line])
def test_a_head_without_end_is_not_kept(served: Served, pieces: type[Iterator[bytes]]) -> None:
    with connect(served) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")

        total = sent(client, pieces(), 64 * KIB * KIB)

        # The rest lay in the buffers of both sockets.
        assert total < 32 * KIB * KIB
    assert httpx2.get(served.url).status_code == 200


def test_a_head_that_is_too_long_is_refused_in_words(served: Served) -> None:
    with connect(served) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        time.sleep(0.1)
        client.sendall(b"a" * (HEAD_BYTES + 1))

        head, _, body = answer(client).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400")
    assert body == b"The head of the request is too long."


def test_a_long_head_is_taken(served: Served) -> None:
    with connect(served) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: ")
        for _ in range(60):
            client.sendall(b"a" * KIB)
            time.sleep(0.001)
        client.sendall(b"\r\n\r\n")

        assert answer(client).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost:",
    ],
)
def test_a_request_that_is_not_sent_to_its_end_holds_no_connection(
    served: Served, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", SOON_S)
    with connect(served) as client:
        client.sendall(begun)
        began = time.monotonic()

        got = answer(client)

        assert got.count(b"HTTP/1.1 200") == begun.count(b"\r\n\r\n")
        assert time.monotonic() - began < 15


def test_a_client_that_sends_drop_by_drop_gains_no_time(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", SOON_S)
    with connect(served) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        began = time.monotonic()

        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 15:
                client.sendall(b"a")
                time.sleep(0.05)

        assert time.monotonic() - began < 15


def test_a_connection_that_is_used_outlives_the_time_for_a_head(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 2 * SOON_S)
    with httpx2.Client(base_url=served.url) as client:
        ports = set()
        for _ in range(4):
            stream = client.get("/").extensions["network_stream"]
            ports.add(stream.get_extra_info("client_addr"))
            time.sleep(0.7 * SOON_S)

        assert len(ports) == 1


def test_more_requests_sent_ahead_than_are_taken_cost_the_connection(served: Served) -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(served) as client:
        client.sendall(request * 10 * SENT_AHEAD)

        assert answer(client).count(b"HTTP/1.1 200") < 2 * SENT_AHEAD
    with connect(served) as client:
        last = request.replace(b"Host", b"Connection: close\r\nHost")
        client.sendall(request * (SENT_AHEAD // 2) + last)

        assert answer(client).count(b"HTTP/1.1 200") == SENT_AHEAD // 2 + 1

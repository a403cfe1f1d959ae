"""How the server ends: transfers under way may end, for a time; all else ends at once."""

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
import uvicorn
from fastapi import FastAPI, Request

from service.blobs.cache import Source
from service.blobs.folder import FolderStore
from service.blobs.store import MIB
from service.http.protocol import Protocol
from service.http.sender import PlanResponse
from service.http.server import Server
from service.layout.splice import plan_plain
from service.names import digest_of

CONTENT = random.Random(1).randbytes(24 * MIB)  # noqa: S311


@dataclass
class Parts:
    source: Source
    transfers: anyio.CapacityLimiter


class Running:
    """A server in a thread of its own."""

    def __init__(self, folder: Path, grace_s: int) -> None:
        store = FolderStore(folder, reserve_bytes=0)
        digest = digest_of(CONTENT)
        with store.writer(digest, len(CONTENT)) as writer:
            writer.write(CONTENT)
            writer.commit()
        app = FastAPI()
        parts = Parts(store, anyio.CapacityLimiter(2))

        @app.get("/file")
        def send(request: Request) -> PlanResponse:
            return PlanResponse(request, plan_plain(digest, len(CONTENT)), parts)

        @app.get("/healthz")
        async def health() -> str:
            return "well"

        config = uvicorn.Config(
            app,
            port=0,
            loop="uvloop",
            http=Protocol,
            log_level="critical",
            timeout_graceful_shutdown=grace_s,
        )
        self.waits_ended = threading.Event()
        self.server = Server(config, self.waits_ended.set)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port: int = self.server.servers[0].sockets[0].getsockname()[1]

    def get(self, path: str) -> socket.socket:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.settimeout(20)
        client.connect(("127.0.0.1", self.port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return client


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[int], Running]]:
    with contextlib.ExitStack() as stack:

        def started(grace_s: int) -> Running:
            running = Running(tmp_path, grace_s)
            stack.callback(running.thread.join, 30)
            stack.callback(setattr, running.server, "force_exit", True)  # noqa: FBT003
            stack.callback(setattr, running.server, "should_exit", True)  # noqa: FBT003
            return running

        yield started


def rest_of(client: socket.socket) -> bytes:
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(MIB):
            parts.append(part)
    return b"".join(parts)


def test_a_download_under_way_arrives_whole_and_nothing_new_begins(
    start: Callable[[int], Running],
) -> None:
    running = start(30)
    with running.get("/file") as client, running.get("/healthz") as idle:
        idle.recv(MIB)
        head = client.recv(1000)

        running.server.should_exit = True
        assert running.waits_ended.wait(10)
        assert rest_of(idle) == b""
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", running.port))
        content = (head + rest_of(client)).partition(b"\r\n\r\n")[2]

    running.thread.join(10)
    assert not running.thread.is_alive()
    assert content == CONTENT


def test_a_download_that_does_not_end_is_cut_off_after_the_time_of_grace(
    start: Callable[[int], Running],
) -> None:
    running = start(1)
    with running.get("/file") as client:
        head = client.recv(1000)

        running.server.should_exit = True
        running.thread.join(15)

        assert not running.thread.is_alive()
        assert len(head + rest_of(client)) < len(CONTENT)

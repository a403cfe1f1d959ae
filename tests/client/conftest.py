"""A server that misbehaves on purpose, over real sockets: what a network and a restart do."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from service.client.client import Client


@dataclass
class Representation:
    """What is served at an address."""

    content: bytes
    etag: str = '"one"'
    states_digest: bool = True
    takes_ranges: bool = True


@dataclass
class Moody:
    """A server, what it serves, and how often it fails first."""

    url: str = ""
    files: dict[str, Representation] = field(default_factory=dict)
    answers: dict[tuple[str, str], list[tuple[int, Any]]] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)
    refuse: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    def requests(self, method: str) -> list[dict[str, str]]:
        return [headers for asked, _, headers, _ in self.seen if asked == method]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    moody: Moody

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        self.moody.seen.append((self.command, self.path, dict(self.headers.items()), body))
        if self.moody.refuse:
            status, headers = self.moody.refuse.pop(0)
            self.reply(status, b"", headers)
            return
        planned = self.moody.answers.get((self.command, self.path.partition("?")[0]))
        if planned:
            status, value = planned.pop(0) if len(planned) > 1 else planned[0]
            kind = "application/problem+json" if status >= 400 else "application/json"
            text = value if isinstance(value, bytes) else json.dumps(value).encode()
            if text.startswith(b"data:"):
                kind = "text/event-stream"
            self.reply(status, text, {"Content-Type": kind})
            return
        self.file()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = answer  # noqa: N815 - http.server's

    def file(self) -> None:
        found = self.moody.files.get(self.path.partition("?")[0])
        if found is None:
            problem = {
                "type": "/problems/not-found",
                "title": "No such thing",
                "status": 404,
                "detail": f"no file {self.path!r}",
                "kind": "file",
            }
            self.reply(404, json.dumps(problem).encode(), {})
            return
        if self.headers.get("If-None-Match") == found.etag:
            self.reply(304, b"", {"ETag": found.etag})
            return
        headers = {"ETag": found.etag}
        if found.states_digest:
            digest = base64.b64encode(hashlib.sha256(found.content).digest()).decode()
            headers["Repr-Digest"] = f"sha-256=:{digest}:"
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        current = self.headers.get("If-Range") == found.etag
        if asked and found.takes_ranges and current:
            start, total = int(asked[1]), len(found.content)
            if start >= total:
                self.reply(416, b"{}", {"Content-Range": f"bytes */{total}"})
                return
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
            self.reply(206, found.content[start:], headers)
            return
        self.reply(200, found.content, headers)

    def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.moody.cut_after and status in {200, 206} and len(content) > 8:
            content = content[: self.moody.cut_after.pop(0)]
            self.close_connection = True
        self.wfile.write(content)


@pytest.fixture
def moody() -> Iterator[Moody]:
    found = Moody()
    handler = type("MoodyHandler", (Handler,), {"moody": found})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def served(moody: Moody) -> Representation:
    """A file at `/file`."""
    moody.files["/file"] = Representation(hashlib.shake_128(b"weights").digest(300_000))
    return moody.files["/file"]


@pytest.fixture
def pauses() -> list[float]:
    """How long the client waited between tries; no test waits itself."""
    return []


@pytest.fixture
def client(moody: Moody, pauses: list[float]) -> Iterator[Client]:
    with Client(moody.url, "secret", sleep=pauses.append) as client:
        yield client

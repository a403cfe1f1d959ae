"""Sending plans, through a real uvicorn on loopback: ranges, conditions, slow and lost clients."""

import base64
import contextlib
import hashlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx2
import pytest
import uvicorn
from fastapi import FastAPI, Request

from service import observability
from service.blobs.bucket import Patience, connect
from service.blobs.cache import Cache, Source
from service.blobs.folder import FolderStore
from service.blobs.s3 import S3Store
from service.blobs.shelves import MemoryShelf
from service.blobs.store import MIB, BlobStore
from service.http import body, problems
from service.http.body import _cached_bytes
from service.http.protocol import TURN_BYTES, Protocol
from service.http.sender import PlanResponse
from service.layout.header import compose
from service.layout.overlay import overlay_header
from service.layout.splice import Plan, plan_patched, plan_plain, plan_undo
from service.names import Digest, digest_of
from tests.seaweed import Seaweed

THREADS = 2
STALLED_AFTER_S = 1.0


@dataclass
class Parts:
    source: Source
    transfers: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(THREADS))


@dataclass
class Server:
    """A server that answers /NAME with the plan of that name, and what the whole of it is."""

    port: int
    store: FolderStore
    plans: dict[str, Plan]
    whole: dict[str, bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **headers: str) -> httpx2.Response:
        sent = {name.replace("_", "-"): text for name, text in headers.items()}
        return httpx2.get(self.url + path, headers=sent, timeout=20)

    def connect(self, path: str, *lines: str, receive_bytes: int | None = None) -> socket.socket:
        """Send a request by hand, and read nothing yet."""
        client = socket.socket()
        if receive_bytes:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.settimeout(20)
        client.connect(("127.0.0.1", self.port))
        head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *lines, "", ""])
        client.sendall(head.encode("latin-1"))
        return client


def store_bytes(store: BlobStore, content: bytes) -> Digest:
    digest = digest_of(content)
    with store.writer(digest, len(content)) as writer:
        writer.write(content)
        writer.commit()
    return digest


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311


def made_plans(store: BlobStore) -> tuple[dict[str, Plan], dict[str, bytes]]:
    """A base of large and of many tiny tensors, an overlay of some, and all that follows."""
    base = compose(
        [("large", "F32", (2, MIB)), ("mid", "F16", (999, 333))]
        + [(f"tiny.{n}", "F32", (n % 7,)) for n in range(2000)]
    )
    overlay = overlay_header(base, ["mid", *(f"tiny.{n}" for n in range(0, 2000, 3))])
    base_file = base.raw + noise(1, base.file_size - base.data_start)
    overlay_file = overlay.raw + noise(2, overlay.file_size - overlay.data_start)
    patched, undo = bytearray(base_file), bytearray(overlay_file)
    for new in overlay.tensors:
        own = base.entry(new.name)
        patched[own.start : own.end] = overlay_file[new.start : new.end]
        undo[new.start : new.end] = base_file[own.start : own.end]

    one, two = store_bytes(store, base_file), store_bytes(store, overlay_file)
    big = noise(3, 40 * MIB)
    plans = {
        "plain": plan_plain(one, len(base_file)),
        "patched": plan_patched(one, base, two, overlay),
        "undo": plan_undo(one, base, overlay),
        "empty": plan_plain(store_bytes(store, b""), 0),
        "big": plan_plain(store_bytes(store, big), len(big)),
        "lost": plan_plain(digest_of(b"lost"), 4),
    }
    whole = {
        "plain": base_file,
        "patched": bytes(patched),
        "undo": bytes(undo),
        "empty": b"",
        "big": big,
    }
    return plans, whole


def application(parts: Parts, plans: dict[str, Plan]) -> FastAPI:
    app = FastAPI()
    problems.install(app)

    @app.get("/healthz")
    async def health() -> str:
        return "well"

    @app.api_route("/{name}", methods=["GET", "HEAD"])
    def send(name: str, request: Request) -> PlanResponse:
        return PlanResponse(
            request,
            plans[name],
            parts,
            headers={"Patchbay-Recipe": "r", "Cache-Control": "no-cache"},
            stalled_after_s=STALLED_AFTER_S,
        )

    return app


@contextlib.contextmanager
def running(app: FastAPI, http: type[Protocol] | str = Protocol) -> Iterator[int]:
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, loop="uvloop", http=http, log_level="critical"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    store = FolderStore(tmp_path_factory.mktemp("blobs"), reserve_bytes=0)
    plans, whole = made_plans(store)
    with running(application(Parts(store), plans)) as port:
        yield Server(port, store, plans, whole)


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[Callable[[str | type[Protocol]], Server]]:
    """A server of one large blob that the test may damage."""
    store = FolderStore(tmp_path / "blobs", reserve_bytes=0)
    big = noise(4, 40 * MIB)
    plans = {"big": plan_plain(store_bytes(store, big), len(big))}
    with contextlib.ExitStack() as stack:

        def start(http: str | type[Protocol]) -> Server:
            port = stack.enter_context(running(application(Parts(store), plans), http))
            return Server(port, store, plans, {"big": big})

        yield start


def read_all(client: socket.socket) -> bytes:
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(MIB):
            parts.append(part)
    return b"".join(parts)


def open_blobs(server: Server) -> int:
    root = server.store.describe().removeprefix("file://")
    found = 0
    for entry in os.scandir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found += str(Path(entry.path).readlink()).startswith(f"{root}/sha256/")
    return found


def sent_bytes() -> float:
    """How much this process has sent of files."""
    (counter,) = observability.sent_bytes.collect()
    return next(each.value for each in counter.samples if each.name.endswith("_total"))


def wait_until(condition: Callable[[], bool], timeout_s: float = 15) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


# ── whole files and ranges ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["plain", "patched", "undo", "empty", "big"])
def test_a_whole_file_arrives_with_its_validators(server: Server, name: str) -> None:
    answer = server.get(f"/{name}")

    assert answer.status_code == 200
    assert answer.content == server.whole[name]
    assert answer.headers["etag"] == f'"{server.plans[name].etag}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-length"] == str(len(server.whole[name]))
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["patchbay-recipe"] == "r"
    assert "content-range" not in answer.headers


def test_the_digest_of_a_file_is_told_where_it_is_known(server: Server) -> None:
    plain, patched = server.get("/plain", range="bytes=0-3"), server.get("/patched")

    digest = base64.b64encode(hashlib.sha256(server.whole["plain"]).digest()).decode()
    assert (plain.status_code, len(plain.content)) == (206, 4)
    assert plain.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert "repr-digest" not in patched.headers


def test_sixty_random_ranges_equal_slices(server: Server) -> None:
    chance = random.Random(5)  # noqa: S311
    with httpx2.Client(base_url=server.url, timeout=20) as client:
        for turn in range(60):
            name = ("patched", "undo", "plain")[turn % 3]
            whole = server.whole[name]
            start, last = sorted(chance.choices(range(len(whole)), k=2))
            last = last if turn % 2 else min(last, start + chance.randrange(5000))

            answer = client.get(f"/{name}", headers={"Range": f"bytes={start}-{last}"})

            assert answer.status_code == 206
            assert answer.content == whole[start : last + 1]
            assert answer.headers["content-range"] == f"bytes {start}-{last}/{len(whole)}"
            assert answer.headers["content-length"] == str(last + 1 - start)


def test_head_tells_all_and_sends_nothing(server: Server) -> None:
    for name in ("patched", "empty"):
        client = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        with client:
            client.sendall(
                f"HEAD /{name} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-3\r\n"
                "Connection: close\r\n\r\n".encode()
            )
            head, _, body = read_all(client).partition(b"\r\n\r\n")

        assert head.startswith(b"HTTP/1.1 200")
        assert f"content-length: {len(server.whole[name])}".encode() in head
        assert server.plans[name].etag.encode() in head
        assert body == b""


def test_a_connection_serves_one_file_after_another(server: Server) -> None:
    with httpx2.Client(base_url=server.url, timeout=20) as client:
        for name in ("patched", "empty", "undo", "patched"):
            assert client.get(f"/{name}").content == server.whole[name]
            assert client.head(f"/{name}").status_code == 200


# ── with and without a copy ──────────────────────────────────────────────────────────────────


@pytest.fixture
def sendfile(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each call of `os.sendfile` has sent."""
    sent: list[int] = []
    real = os.sendfile

    def counted(peer: int, file: int, start: int, count: int) -> int:
        sent.append(real(peer, file, start, count))
        return sent[-1]

    monkeypatch.setattr(os, "sendfile", counted)
    return sent


def test_what_the_page_cache_holds_goes_out_without_a_copy(
    server: Server, sendfile: list[int]
) -> None:
    answer = server.get("/big")

    assert answer.content == server.whole["big"]
    assert sum(sendfile) == len(server.whole["big"])
    assert max(sendfile) <= TURN_BYTES


def test_what_the_page_cache_lacks_is_read_apart_from_the_loop(
    server: Server, sendfile: list[int]
) -> None:
    path = server.store.local_path(server.plans["big"].digests[0])
    assert path is not None
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if _cached_bytes(file.fileno(), 0, 2 * MIB):
            pytest.skip("this file system keeps its pages")

    answer = server.get("/big", range="bytes=0-2097151")

    assert answer.content == server.whole["big"][: 2 * MIB]
    assert sum(sendfile) <= MIB


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_other_servers_send_the_same_bytes(
    doomed: Callable[[str | type[Protocol]], Server], sendfile: list[int], http: str
) -> None:
    server = doomed(http)

    assert server.get("/big").content == server.whole["big"]
    assert sendfile == []


@pytest.mark.parametrize("http", [Protocol, "httptools", "h11"])
def test_what_lies_in_memory_is_the_same_bytes(tmp_path: Path, http: str | type[Protocol]) -> None:
    store = FolderStore(tmp_path, reserve_bytes=0)
    plans, whole = made_plans(store)
    shelf = MemoryShelf(64 * MIB)
    for digest in plans["patched"].digests:
        shelf.fill(digest, store.stat(digest) or 0, store.stream(digest))

    with (
        contextlib.closing(Cache(store, shelf, None, lambda _: None)) as cache,
        running(application(Parts(cache), plans), http) as port,
    ):
        answer = httpx2.get(f"http://127.0.0.1:{port}/patched", timeout=20)

    assert answer.content == whole["patched"]


def test_requests_sent_at_once_are_answered_in_order(server: Server) -> None:
    client = server.connect("/big")
    with client:
        client.sendall(b"GET /undo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        first, second = server.whole["big"], server.whole["undo"]
        head, _, rest = read_all(client).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200")
    assert rest.startswith(first)
    assert rest.endswith(second)
    assert rest[len(first) :].startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("is_cached", [True, False])
def test_a_client_that_asked_for_more_and_left_ends_its_download(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    is_cached: bool,
) -> None:
    if not is_cached:
        monkeypatch.setattr(body, "_cached_bytes", lambda *_: 0)
    before = sent_bytes()
    with server.connect("/big", receive_bytes=4096) as client:
        client.sendall(b"GET /undo HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert open_blobs(server) == 1

    assert wait_until(lambda: open_blobs(server) == 0, timeout_s=STALLED_AFTER_S / 2)
    assert sent_bytes() - before < len(server.whole["big"])
    assert "cut off" not in capsys.readouterr().out  # it is the client who left


def test_what_is_no_request_cuts_off_the_response_before_it(server: Server) -> None:
    with server.connect("/big", receive_bytes=4096) as client:
        client.sendall(b"nonsense\r\n\r\n")

        got = read_all(client).partition(b"\r\n\r\n")[2]

    assert len(got) < len(server.whole["big"])
    assert server.whole["big"].startswith(got)


# ── conditions ───────────────────────────────────────────────────────────────────────────────


def test_a_caller_who_has_it_gets_304_without_a_body(server: Server) -> None:
    etag = server.get("/patched", range="bytes=0-0").headers["etag"]

    answer = server.get("/patched", if_none_match=f'"other", W/{etag}', range="bytes=0-3")

    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == etag
    assert answer.headers["cache-control"] == "no-cache"
    assert "content-type" not in answer.headers
    assert server.get("/patched", if_none_match='"other"').status_code == 200


def test_a_range_is_served_only_of_the_state_that_the_caller_knows(server: Server) -> None:
    etag = f'"{server.plans["patched"].etag}"'

    same = server.get("/patched", range="bytes=4-7", if_range=etag)
    other = server.get("/patched", range="bytes=4-7", if_range='"other"')
    weak = server.get("/patched", range="bytes=4-7", if_range=f"W/{etag}")

    assert (same.status_code, same.content) == (206, server.whole["patched"][4:8])
    assert (other.status_code, len(other.content)) == (200, len(server.whole["patched"]))
    assert weak.status_code == 200


def test_a_range_outside_the_file_is_a_problem_that_tells_the_size(server: Server) -> None:
    size = len(server.whole["patched"])

    answer = server.get("/patched", range=f"bytes={size}-")

    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{size}"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/bad-range"


@pytest.mark.parametrize(
    "line",
    [
        "Range: bytes=" + ",".join(f"{n}-{n}" for n in range(5000)),
        "Range: bytes=0-" + "9" * 20_000,
        "Range: bytes=" + "9" * 20_000 + "-",
        "Range: bytes=-" + "0" * 20_000,
        "Range: bytes=\xff-\xfe",
        "Range: " + "bytes=" * 3000,
        "Range: bytes=5-1",
        "Range:",
        "Range: bytes=0-1\r\nRange: bytes=2-3",
        "If-None-Match: " + '"' * 20_001,
        "If-None-Match: " + 'W/"' * 7000,
        "If-Range: \xff",
    ],
)
def test_hostile_headers_are_answered_and_the_service_lives_on(server: Server, line: str) -> None:
    with server.connect("/undo", line, "Connection: close") as client:
        head, _, body = read_all(client).partition(b"\r\n\r\n")

    status = int(head.split()[1])
    assert status in {200, 206, 304, 400, 416}
    if status == 200:
        assert body == server.whole["undo"]
    assert server.get("/healthz").status_code == 200


# ── what goes wrong on the way ───────────────────────────────────────────────────────────────


def test_a_blob_that_is_missing_from_the_start_is_a_problem(server: Server) -> None:
    answer = server.get("/lost")

    assert answer.status_code == 404
    assert answer.json()["type"] == "/problems/blob-not-found"


def test_a_blob_deleted_during_a_download_still_arrives_whole(
    doomed: Callable[[str | type[Protocol]], Server],
) -> None:
    server = doomed(Protocol)
    with httpx2.stream("GET", server.url + "/big", timeout=20) as answer:
        parts = answer.iter_bytes(MIB)
        got = [next(parts)]
        server.store.delete(server.plans["big"].digests[0])
        got += parts

    assert b"".join(got) == server.whole["big"]
    assert wait_until(lambda: open_blobs(server) == 0)


@pytest.mark.parametrize("http", [Protocol, "httptools", "h11"])
def test_a_body_that_cannot_be_read_to_its_end_never_looks_whole(
    doomed: Callable[[str | type[Protocol]], Server], http: str | type[Protocol]
) -> None:
    server = doomed(http)
    path = server.store.local_path(server.plans["big"].digests[0])
    assert path is not None
    os.truncate(path, 10 * MIB + 5)

    with pytest.raises(httpx2.TransportError):
        server.get("/big")

    assert server.get("/healthz").status_code == 200
    assert wait_until(lambda: open_blobs(server) == 0)


def test_a_client_that_leaves_ends_its_download(server: Server) -> None:
    with server.connect("/big", receive_bytes=4096) as client:
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert open_blobs(server) == 1

    assert wait_until(lambda: open_blobs(server) == 0, timeout_s=STALLED_AFTER_S / 2)


def test_clients_that_read_nothing_hold_no_thread_and_are_cut_off(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        parked = [
            stack.enter_context(server.connect("/big", receive_bytes=4096)) for _ in range(40)
        ]
        assert wait_until(lambda: open_blobs(server) == len(parked))

        healthy, answer = server.get("/healthz"), server.get("/patched")

        assert healthy.status_code == 200
        assert answer.content == server.whole["patched"]
        assert wait_until(lambda: open_blobs(server) == 0)
        for client in parked:
            assert len(read_all(client)) < len(server.whole["big"])


def test_a_slow_client_that_keeps_reading_gets_everything(server: Server) -> None:
    with server.connect("/patched", "Connection: close", receive_bytes=65536) as client:
        got = b""
        began = time.monotonic()
        while part := client.recv(MIB):
            got += part
            if len(got) < 5 * MIB:
                time.sleep(0.04)

    assert time.monotonic() - began > 1.2 * STALLED_AFTER_S
    assert got.endswith(server.whole["patched"][-1000:])
    assert got.partition(b"\r\n\r\n")[2] == server.whole["patched"]


def test_a_file_from_s3_is_served_likewise_and_its_loss_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seaweed = Seaweed(tmp_path)
    seaweed.start()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.address.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.address.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = connect(seaweed.address.endpoint_url, Patience(connect_s=1, read_s=5, attempts=1))
    store = S3Store(client, seaweed.address.bucket)
    plans, whole = made_plans(store)

    with running(application(Parts(store), plans)) as port:
        url = f"http://127.0.0.1:{port}/patched"
        all_of_it = httpx2.get(url, timeout=20)
        part = httpx2.get(url, headers={"Range": "bytes=8000000-8400000"}, timeout=20)
        seaweed.stop()
        lost = httpx2.get(url, timeout=20)

    assert all_of_it.content == whole["patched"]
    assert part.content == whole["patched"][8_000_000:8_400_001]
    assert (lost.status_code, lost.headers["retry-after"]) == (503, "2")
    assert lost.json()["type"] == "/problems/store-unavailable"

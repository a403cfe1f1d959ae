"""What becomes of `patchbay serve` itself: killed, started twice, ended by Ctrl-C."""

import os
import random
import signal
import socket
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
from safetensors.numpy import save

from service.blobs.store import MIB
from tests.e2e.bench import Bench, net
from tests.service_process import ServiceProcess

pytestmark = [pytest.mark.outages, pytest.mark.xdist_group("service that ends")]


@pytest.fixture(scope="module")
def once() -> Iterator[ServiceProcess]:
    with ServiceProcess() as service:
        yield service


@pytest.fixture
def own(once: ServiceProcess) -> ServiceProcess:
    """A service that may be killed; started again where an earlier test has ended it."""
    return once if once.is_running else once.start()


def test_nothing_committed_is_lost_when_every_process_is_killed(own: ServiceProcess) -> None:
    bench = Bench(own.client, own.home / "blobs")
    clean = bench.pair()
    patched = bench.weights("main+fog=1").content
    bench.client.put(
        bench.of("channels", "edge"),
        json={"recipe": bench.ref("clean@main+fog=1")},
        headers={"If-None-Match": "*"},
    )
    _big_pair(bench)
    before = bench.visible()
    address = bench.extract("big", "big", "bigger").headers["location"]
    while bench.get(address)["state"] != "running":
        time.sleep(0.02)
    # Behind the extraction, so it has not begun when everything is killed.
    queued = bench.client.post("/v1/builds", json={"recipe": bench.ref("clean@main+fog=0.5")})
    family = own.processes

    own.kill_all()
    _, alive = psutil.wait_procs(family, timeout=10)
    own.start()

    bench = Bench(own.client, bench.blobs, bench.namespace)
    extraction = bench.client.get(address, headers={"Prefer": "wait=60"}).json()
    built = bench.ended(queued)
    after = bench.visible()
    assert alive == []
    assert (extraction["state"], extraction["attempt"]) == ("succeeded", 2), extraction
    assert built["state"] == "succeeded", built
    assert set(_texts(before["blobs"])) <= set(_texts(after["blobs"]))
    assert (after["models"], after["channels"]) == (before["models"], before["channels"])
    assert bench.weights("main").content == clean
    assert bench.client.get(f"{bench.of('channels', 'edge')}/weights").content == patched


def _big_pair(bench: Bench) -> None:
    """Models `big` and `bigger`, whose extraction takes a second or two."""
    rng = np.random.default_rng(0)
    clean = {f"l{n}.weight": rng.standard_normal((1024, 1024), "float32") for n in range(16)}
    robust = {name: value + np.float32(0.1) * value[::-1] for name, value in clean.items()}
    bench.model("big", {"model.safetensors": save(clean)})
    bench.model("bigger", {"model.safetensors": save(robust)})


def _texts(value: object) -> list[str]:
    assert isinstance(value, list)
    return value


def test_a_database_that_is_killed_alone_comes_back_without_a_restart(own: ServiceProcess) -> None:
    pid = own.processes[0].pid

    own.process_of("bin/postgres").kill()
    own.wait_until(lambda: not own.is_whole())
    own.wait_until(own.is_whole)

    bench = Bench(own.client, own.home / "blobs")
    clean = bench.pair()
    assert bench.weights("main+fog=1").content != clean
    assert own.processes[0].pid == pid


def test_a_worker_that_is_killed_alone_is_followed_by_one_that_makes_the_same_bytes(
    own: ServiceProcess,
) -> None:
    bench = Bench(own.client, own.home / "blobs")
    bench.pair()
    first = bench.weights("main+fog=0.5")
    build = first.headers["x-patchbay-recipe"].removeprefix("sha256:")
    assert bench.client.delete(f"/v1/builds/{build}").status_code == 204
    _big_pair(bench)
    address = bench.extract("big", "big", "bigger").headers["location"]
    while bench.get(address)["state"] != "running":
        time.sleep(0.02)

    own.process_of("service.manage worker").send_signal(signal.SIGKILL)

    ended = bench.client.get(address, headers={"Prefer": "wait=60"}).json()
    assert (ended["state"], ended["attempt"]) == ("succeeded", 2), ended
    assert [v["number"] for v in bench.get(f"{bench.of('patches', 'big')}/versions")["items"]] == [
        1
    ]
    again = bench.weights("main+fog=0.5")
    assert (again.content, again.headers["etag"]) == (first.content, first.headers["etag"])


def test_a_second_service_on_one_home_is_refused(own: ServiceProcess) -> None:
    second = own.spawn()

    assert second.wait(60) != 0
    assert f"is in use by process {own.processes[0].pid}" in own.log
    assert "set PATCHBAY_HOME to another directory" in own.log
    assert own.is_whole()


def test_a_download_under_way_arrives_whole_when_the_service_is_asked_to_end(
    own: ServiceProcess,
) -> None:
    bench = Bench(own.client, own.home / "blobs")
    content = random.Random(8).randbytes(64 * MIB)  # noqa: S311
    digest = bench.upload(content)
    host, _, port = own.url.removeprefix("http://").rpartition(":")
    server = own.processes[0]
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB // 16)
        client.settimeout(30)
        client.connect((host, int(port)))
        head = f"GET /v1/blobs/{digest} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {own.token}"
        client.sendall(f"{head}\r\n\r\n".encode())
        got = bytearray(client.recv(1000))

        server.send_signal(signal.SIGTERM)
        own.wait_until(lambda: "Shutting down" in own.log)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)))
        while part := client.recv(MIB):
            got += part

    own.end()
    assert got.startswith(b"HTTP/1.1 200")
    assert got.partition(b"\r\n\r\n")[2] == content
    assert "Traceback" not in own.log.rpartition("Shutting down")[2]


def test_ctrl_c_ends_all_of_it_and_leaves_nothing_running(own: ServiceProcess) -> None:
    began = time.monotonic()

    status = own.interrupt()

    took = time.monotonic() - began
    left = [each for each in psutil.process_iter(["cmdline"]) if _is_of(each, str(own.home))]
    assert status == 130
    assert took < 15
    assert left == []
    assert not (own.home / "run" / "url").exists()
    assert (own.home / "owner-token").stat().st_mode & 0o777 == 0o600
    assert "Traceback" not in own.log.rpartition("Shutting down")[2]


def _is_of(process: psutil.Process, home: str) -> bool:
    return process.pid != os.getpid() and home in " ".join(process.info["cmdline"] or [])


def test_an_address_that_is_not_ours_is_told_before_anything_is_made() -> None:
    service = ServiceProcess({"PATCHBAY_HOST": "203.0.113.1"})
    try:
        process = service.spawn()

        assert process.wait(60) != 0
        assert "203.0.113.1" in service.log
        assert "choose another with --port" in service.log
        assert "Traceback" not in service.log
        assert not (service.home / "postgres").exists()
    finally:
        service.close()


def test_the_nets_of_these_tests_are_ones_that_a_patch_moves() -> None:
    clean, robust = net(1), net(2, like=net(1))

    assert all(not np.array_equal(clean[n], robust[n]) for n in clean if "tracked" not in n)

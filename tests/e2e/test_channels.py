"""Channels on the running service: two writers, waiting readers, and going back."""

import concurrent.futures
import contextlib
import select
import socket
import time
from collections.abc import Iterator

import httpx2
import psutil
import pytest

from tests.e2e.bench import Bench, refused
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.xdist_group("service")


@pytest.fixture
def edge(pair: Bench) -> Iterator[str]:
    """A channel at `clean` with half of `fog`; the address of the channel."""
    address = pair.of("channels", "edge")
    made = pair.client.put(
        address,
        json={"recipe": pair.ref("clean@main+fog=0.5")},
        headers={"If-None-Match": "*"},
    )
    assert made.status_code == 201, made.text
    pair.weights("main+fog=0.5")
    yield address
    etag = pair.client.get(address).headers["etag"]
    assert pair.client.delete(address, headers={"If-Match": etag}).status_code == 204


def _rescale(client: httpx2.Client, edge: str, scale: object, etag: str) -> httpx2.Response:
    return client.patch(f"{edge}/patches/fog", json={"scale": scale}, headers={"If-Match": etag})


def test_of_many_writers_at_once_one_moves_and_all_others_are_told(pair: Bench, edge: str) -> None:
    etag = pair.client.get(edge).headers["etag"]
    before = len(pair.get(f"{edge}/moves")["items"])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: _rescale(pair.client, edge, n / 10, etag), range(1, 9)))

    moved = [answer for answer in answers if answer.status_code == 200]
    assert len(moved) == 1, [answer.status_code for answer in answers]
    for answer in answers:
        if answer is not moved[0]:
            refused(answer, 412, "state-moved", pair.ref("edge"), etag.strip('"'), "read it again")
    assert len(pair.get(f"{edge}/moves")["items"]) == before + 1


def test_of_two_that_make_a_channel_at_once_one_is_told(pair: Bench) -> None:
    address = pair.of("channels", "twice")
    body = {"recipe": pair.ref("clean")}

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(
                lambda _: pair.client.put(address, json=body, headers={"If-None-Match": "*"}),
                range(4),
            )
        )

    assert sorted(answer.status_code for answer in answers) == [201, 412, 412, 412]
    assert len(pair.get(f"{address}/moves")["items"]) == 1


def test_a_move_that_names_no_state_is_refused(pair: Bench, edge: str) -> None:
    with pair.nothing_left():
        unsaid = pair.client.patch(f"{edge}/patches/fog", json={"scale": 1})
        stale = _rescale(pair.client, edge, 1, '"999"')
        new = pair.client.put(
            edge, json={"recipe": pair.ref("clean")}, headers={"If-None-Match": "*"}
        )

    refused(unsaid, 428, "state-not-named", pair.ref("edge"), "If-Match")
    refused(stale, 412, "state-moved", "not 999")
    refused(new, 412, "state-moved", "read it again")


@pytest.mark.parametrize("scale", [0.12345, "x", 11])
def test_a_channel_does_not_take_a_bad_scale(pair: Bench, edge: str, scale: object) -> None:
    etag = pair.client.get(edge).headers["etag"]

    with pair.nothing_left():
        answer = _rescale(pair.client, edge, scale, etag)

    refused(answer, 422, "bad-scale")


def test_a_waiting_reader_wakes_within_a_second_of_a_move(
    service: ServiceProcess, pair: Bench, edge: str
) -> None:
    pair.weights("main+fog=0.25")  # built beforehand, so that the wait alone is measured
    held = pair.client.get(f"{edge}/weights")
    etag = pair.client.get(edge).headers["etag"]

    with (
        concurrent.futures.ThreadPoolExecutor(1) as pool,
        service.client_with(service.token) as reader,
    ):
        headers = {"If-None-Match": held.headers["etag"], "Prefer": "wait=30"}
        waiting = pool.submit(reader.get, f"{edge}/weights", headers=headers)
        time.sleep(1)
        assert not waiting.done()
        moved = _rescale(pair.client, edge, 0.25, etag)
        began = time.monotonic()
        answer = waiting.result(timeout=20)
        took = time.monotonic() - began

    assert moved.status_code == 200, moved.text
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=30")
    assert answer.content == pair.weights("main+fog=0.25").content
    assert answer.headers["x-patchbay-move"] == moved.headers["etag"].strip('"')
    assert took < 1


def test_a_reader_who_waits_in_vain_is_told_that_nothing_moved(pair: Bench, edge: str) -> None:
    held = pair.client.get(f"{edge}/weights")
    began = time.monotonic()

    answer = pair.client.get(
        f"{edge}/weights",
        headers={"If-None-Match": held.headers["etag"], "Prefer": "wait=1"},
    )

    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == held.headers["etag"]
    assert 0.9 < time.monotonic() - began < 5


def test_a_channel_goes_back_to_any_move_and_to_the_clean_base(pair: Bench, edge: str) -> None:
    clean = pair.weights("main").content
    first = pair.get(edge)["move"]
    patched = pair.client.get(f"{edge}/weights").content

    to_clean = pair.client.post(
        f"{edge}/revert", json={"to": "clean"}, headers={"If-Match": f'"{first}"'}
    )
    at_clean = pair.client.get(f"{edge}/weights").content
    back = pair.client.post(
        f"{edge}/revert", json={"to": first}, headers={"If-Match": to_clean.headers["etag"]}
    )
    lost = pair.client.post(
        f"{edge}/revert", json={"to": 99}, headers={"If-Match": back.headers["etag"]}
    )

    assert at_clean == clean != patched
    assert pair.client.get(f"{edge}/weights").content == patched
    assert back.json()["reverted_to"] == first
    refused(lost, 404, "not-found", "move", "99")


def test_two_hundred_waiting_clients_do_not_slow_the_service_and_all_wake(
    service: ServiceProcess, pair: Bench, edge: str
) -> None:
    pair.weights("main+fog=0.25")
    held = pair.client.get(f"{edge}/weights").headers["etag"]
    url = httpx2.URL(service.url)
    request = (
        f"GET {edge}/weights HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"If-None-Match: {held}\r\nPrefer: wait=60\r\n\r\n"
    ).encode()

    with contextlib.ExitStack() as stack:  # bare sockets: threads would slow the measuring itself
        readers = [
            stack.enter_context(socket.create_connection((url.host, url.port), timeout=30))
            for _ in range(200)
        ]
        for reader in readers:
            reader.sendall(request)
        _until_idle(service.processes[0])  # all of them wait
        took = sorted(_seconds(pair.client) for _ in range(100))
        too_early, _, _ = select.select(readers, [], [], 0)
        moved = _rescale(pair.client, edge, 0.25, pair.client.get(edge).headers["etag"])
        answers = [reader.makefile("rb").readline() for reader in readers]

    assert took[94] < 0.1, took[-10:]
    assert too_early == []
    assert moved.status_code == 200, moved.text
    assert set(answers) == {b"HTTP/1.1 200 OK\r\n"}


def _until_idle(process: psutil.Process) -> None:
    deadline = time.monotonic() + 40
    while process.cpu_percent(interval=0.5) > 10:
        assert time.monotonic() < deadline


def _seconds(client: httpx2.Client) -> float:
    began = time.perf_counter()
    assert client.get("/healthz").status_code == 200
    return time.perf_counter() - began

"""Sweeps, overlays and blobs while something goes wrong: kills, collections, a full disk."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from typing import Any

import httpx2
import numpy as np
import pytest
from safetensors.numpy import save

from service.names import digest_of
from tests.e2e.bench import MAIN_FILE, Bench, refused
from tests.service_process import ServiceProcess

pytestmark = [pytest.mark.outages, pytest.mark.xdist_group("service that ends")]

MIB = 2**20
GOES_ON_S = 5.0
SWEPT = 15
NO_ROOM = {"PATCHBAY_DISK_RESERVE_BYTES": str(2**60)}


@pytest.fixture(scope="module")
def own() -> Iterator[ServiceProcess]:
    """A service to kill parts of."""
    with ServiceProcess() as started:
        yield started


@pytest.fixture
def large(own: ServiceProcess) -> Bench:
    """Model `clean` of 8 MiB with patch `fog` on all of it, in a namespace of the test's own."""
    bench = Bench(own.client, own.home / "blobs")
    rng = np.random.default_rng(5)
    clean = {"conv.weight": rng.standard_normal((1024, 2048)).astype("float32")}
    change = rng.standard_normal((1024, 2048)).astype("float32")
    bench.model("clean", clean)
    bench.model("robust", {"conv.weight": clean["conv.weight"] + change / 16})
    bench.patch("fog", "clean", "robust", quality="standard")
    return bench


# ── sweeps ───────────────────────────────────────────────────────────────────────────────────


def _sweep(bench: Bench, upto: int) -> httpx2.Response:
    recipes = [bench.ref(f"clean@1+fog={number / 1000}") for number in range(1, upto + 1)]
    return bench.client.post("/v1/sweeps", json={"recipes": recipes})


def _under_way(bench: Bench, accepted: httpx2.Response) -> str:
    """Wait until a worker computes; answers the operation's address."""
    address = str(accepted.headers["location"])
    deadline = time.monotonic() + 60
    while bench.get(address)["state"] == "queued":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return address


def _builds(bench: Bench) -> list[dict[str, Any]]:
    own = f"{bench.namespace}/"
    return [row for row in bench._every("/v1/builds") if row["recipe"]["base"].startswith(own)]


def test_a_sweep_whose_worker_is_killed_is_finished_by_another(
    own: ServiceProcess, large: Bench
) -> None:
    accepted = _sweep(large, SWEPT)
    address = _under_way(large, accepted)
    killed = own.process_of("service.manage worker")
    killed.kill()
    interrupted = large.get(address)["state"]

    ended = large.ended(accepted)

    assert interrupted == "running"
    assert ended["state"] == "succeeded"
    assert own.process_of("service.manage worker").pid != killed.pid
    assert len({each["recipe"] for each in ended["result"]["builds"]}) == SWEPT
    assert [row["state"] for row in _builds(large)] == ["ready"] * SWEPT
    assert _sweep(large, SWEPT).status_code == 200


def test_a_cancelled_sweep_leaves_no_build_and_can_be_asked_for_again(
    own: ServiceProcess, large: Bench
) -> None:
    own.wait_until(own.is_whole)
    accepted = _sweep(large, 4 * SWEPT)  # longer than a cancellation goes unseen
    address = _under_way(large, accepted)

    blobs = large.visible()["blobs"]
    large.client.post(f"{address}/cancel")
    ended = large.ended(accepted)
    left = _builds(large), large.visible()["blobs"]
    again = large.ended(_sweep(large, 3))

    assert ended["state"] == "cancelled"
    assert left == ([], blobs)
    assert again["state"] == "succeeded"
    assert [row["state"] for row in _builds(large)] == ["ready"] * 3
    assert large.weights("1+fog=0.003").status_code == 200


# ── collection and expiry ────────────────────────────────────────────────────────────────────


def _collect(client: httpx2.Client) -> None:
    answer = client.post("/v1/collections", json={"older_than_s": 0})
    assert answer.status_code == 202, answer.text
    ended = client.get(answer.headers["location"], headers={"Prefer": "wait=60"}).json()
    assert ended["state"] == "succeeded", ended


def test_a_download_ends_whole_though_its_overlay_expires_and_is_rebuilt_to_the_same_bytes(
    own: ServiceProcess, large: Bench
) -> None:
    own.wait_until(own.is_whole)
    first = large.weights("1+fog=0.5")
    build = large.ended(
        large.client.post("/v1/builds", json={"recipe": large.ref("clean@1+fog=0.25")})
    )["result"]
    whole = large.client.get(build["links"]["weights"])
    overlay = large.get(f"/v1/builds/{build['id']}")["files"][0]["overlay_digest"]
    stored = large.blobs / "sha256" / overlay[7:9] / overlay[7:]

    with large.client.stream("GET", build["links"]["weights"]) as slow:
        parts = slow.iter_raw(2**14)
        received = [next(parts)]
        assert stored.exists()
        assert large.client.delete(f"/v1/builds/{build['id']}").status_code == 204
        _collect(large.client)
        assert not stored.exists()
        received += parts
    again = large.weights("1+fog=0.25")

    assert b"".join(received) == whole.content == again.content
    assert again.headers["etag"] == whole.headers["etag"] != first.headers["etag"]
    assert stored.exists()


def _publish_patiently(bench: Bench, name: str, content: bytes) -> None:
    """Store and publish, once more where a collection took the blob in between."""
    bench.describe("models", name)
    answer = bench.publish(name, {MAIN_FILE: bench.upload(content)})
    while answer.status_code == 404:
        refused(answer, 404, "blob-not-found")
        answer = bench.publish(name, {MAIN_FILE: bench.upload(content)})
    assert answer.status_code == 201, answer.text


def test_collections_in_a_row_lose_nothing_of_what_others_publish(own: ServiceProcess) -> None:
    own.wait_until(own.is_whole)
    bench = Bench(own.client, own.home / "blobs")
    over = threading.Event()

    def collect() -> int:
        times = 0
        with own.client_with(own.token) as client:
            while not over.is_set():
                _collect(client)
                times += 1
        return times

    contents = [save({"w": np.full(1000, number, "float32")}) for number in range(3)]
    published: dict[str, bytes] = {}
    with ThreadPoolExecutor(1) as threads:
        collections = threads.submit(collect)
        try:
            give_up_at = time.monotonic() + GOES_ON_S
            # The same few contents again and again: stored, published, deleted, collected.
            for number in count():
                name, content = f"m{number}", contents[number % 3]
                _publish_patiently(bench, name, content)
                if time.monotonic() > give_up_at:
                    break
                if number % 5:
                    deleted = bench.client.delete(f"{bench.of('models', name)}/versions/1")
                    assert deleted.status_code == 204, deleted.text
                else:
                    published[name] = content
        finally:
            over.set()
    _collect(bench.client)

    assert collections.result() > 1
    for name, content in published.items():
        assert bench.weights("main", name).content == content


# ── a full disk ──────────────────────────────────────────────────────────────────────────────


def test_a_full_disk_refuses_parts_and_ends_builds_with_nothing_half_done(
    own: ServiceProcess, large: Bench
) -> None:
    content = os.urandom(17 * MIB)
    body = {"digest": digest_of(content), "size_bytes": len(content)}
    begun = large.client.post("/v1/uploads", json=body).json()
    blobs = large.visible()["blobs"]
    own.environment |= NO_ROOM
    own.restart()
    own.wait_until(own.is_whole)
    full = replace(large, client=own.client)
    try:
        part = full.client.put(begun["parts"][1]["url"], content=content[-MIB:])
        build = full.ended(
            full.client.post("/v1/builds", json={"recipe": full.ref("clean@1+fog=1")})
        )
        left = full.visible()["blobs"], _builds(full)
        upload = full.get(f"/v1/uploads/{begun['id']}")
    finally:
        for name in NO_ROOM:
            own.environment[name] = "0"
        own.restart()
        own.wait_until(own.is_whole)

    refused(part, 507, "disk-full", "no room")
    assert (build["state"], build["problem"]["type"]) == ("failed", "/problems/disk-full")
    assert (left, upload["arrived"]) == ((blobs, []), [])
    roomy = replace(large, client=own.client)
    assert roomy.weights("1+fog=1").status_code == 200
    for each in begun["parts"]:
        start = (each["number"] - 1) * begun["part_bytes"]
        sent = content[start : start + each["size_bytes"]]
        assert roomy.client.put(each["url"], content=sent).status_code == 204
    done = roomy.ended(roomy.client.post(f"/v1/uploads/{begun['id']}/complete"))
    assert done["state"] == "succeeded"
    assert roomy.client.get(f"/v1/blobs/{body['digest']}").content == content

"""Long work on the running service: followed, asked for twice, and stopped."""

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import save

from tests.e2e.bench import Bench, net, refused
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.xdist_group("service")


def _events(bench: Bench, address: str) -> list[tuple[str, dict[str, Any]]]:
    found, name = [], ""
    with bench.client.stream("GET", f"{address}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            field, _, text = line.partition(": ")
            if field == "event":
                name = text
            if field == "data":
                found.append((name, json.loads(text)))
    return found


def test_an_extraction_is_followed_from_its_start_to_its_end(bench: Bench) -> None:
    clean = net(1)
    bench.model("clean", clean)
    bench.model("robust", net(2, like=clean))
    address = bench.extract("fog", "clean", "robust").headers["location"]

    events = _events(bench, address)

    progress = [data["progress"] for _, data in events]
    assert progress == sorted(progress)
    assert [name for name, _ in events] == ["operation"] * (len(events) - 1) + ["ended"]
    assert events[-1][1] == bench.get(address)
    assert (events[-1][1]["state"], progress[-1]) == ("succeeded", 1)
    assert bench.get(events[-1][1]["result"]["links"]["version"])["number"] == 1


@contextlib.contextmanager
def _held_at_work(service: ServiceProcess, bench: Bench, address: str) -> Iterator[None]:
    """Stop what computes for an operation in mid-work: a fast machine would finish it first."""
    children = [p for p in service.processes if "service.worker.child" in p.cmdline()]

    def spent_s() -> float:
        return sum(sum(child.cpu_times()[:2]) for child in children)

    while bench.get(address)["state"] != "running":
        time.sleep(0.005)
    enough = spent_s() + 0.03
    while spent_s() < enough:
        time.sleep(0.002)
    for child in children:
        child.suspend()
    try:
        yield
    finally:
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.resume()


def test_a_running_extraction_stops_within_two_seconds_of_its_cancel(
    service: ServiceProcess, bench: Bench
) -> None:
    rng = np.random.default_rng(0)
    clean = {f"l{n}.weight": rng.standard_normal((1024, 1024), "float32") for n in range(24)}
    bench.model("clean", {"model.safetensors": save(clean)})
    robust = {
        name: value + np.float32(0.01) * rng.standard_normal(value.shape, "float32")
        for name, value in clean.items()
    }
    bench.model("robust", {"model.safetensors": save(robust)})
    bench.describe("patches", "fog")

    with bench.nothing_left():
        address = bench.extract("fog", "clean", "robust").headers["location"]
        with _held_at_work(service, bench, address):
            asked = bench.client.post(f"{address}/cancel")
            began = time.monotonic()
            operation = bench.client.get(address, headers={"Prefer": "wait=20"}).json()
            took = time.monotonic() - began

    assert asked.status_code == 200, asked.text
    assert (operation["state"], operation["result"]) == ("cancelled", None)
    assert took < 2
    refused(bench.client.post(f"{address}/cancel"), 409, "operation-ended", "cancelled")


def test_a_request_with_a_key_that_was_sent_before_gets_the_same_operation(bench: Bench) -> None:
    clean = net(1)
    bench.model("clean", clean)
    bench.model("robust", net(2, like=clean))
    bench.describe("patches", "fog")
    body = {"clean": bench.ref("clean"), "robust": bench.ref("robust"), "dry_run": True}
    address = f"{bench.of('patches', 'fog')}/extractions"

    def asked(key: str, **changes: object) -> Any:
        return bench.client.post(
            address,
            json={**body, **changes},
            headers={"Idempotency-Key": f"{key}-{bench.namespace}"},
        )

    first, second, other = asked("a"), asked("a"), asked("b")
    changed = asked("a", quality="high")

    assert first.status_code == second.status_code == other.status_code == 202
    assert first.json()["id"] == second.json()["id"] != other.json()["id"]
    refused(changed, 422, "idempotency-key-reused", "use a new one")
    for each in (first, other):
        assert bench.ended(each)["result"]["dry_run"] is True
    assert bench.get(f"{bench.of('patches', 'fog')}/versions")["items"] == []


def test_all_who_pull_one_new_recipe_share_one_build(pair: Bench) -> None:
    asked = [
        pair.client.post("/v1/builds", json={"recipe": pair.ref("clean@main+fog=0.3141")})
        for _ in range(3)
    ]
    accepted = [answer.json() for answer in asked if answer.status_code == 202]

    assert len({operation["id"] for operation in accepted}) == 1
    assert pair.ended(asked[0])["state"] == "succeeded"
    ready = pair.client.post("/v1/builds", json={"recipe": pair.ref("clean@1+fog~1=0.3141")})
    assert (ready.status_code, ready.json()["state"]) == (200, "ready")


def test_a_build_that_expired_is_made_again_byte_for_byte(pair: Bench) -> None:
    first = pair.weights("main+fog=0.2718")
    build = f"/v1/builds/{first.headers['x-patchbay-recipe'].removeprefix('sha256:')}"

    expired = pair.client.delete(build)
    gone = pair.client.get(f"{build}/weights")
    again = pair.weights("main+fog=0.2718")

    assert expired.status_code == 204, expired.text
    refused(gone, 409, "build-not-ready", "POST /v1/builds")
    assert (again.content, again.headers["etag"]) == (first.content, first.headers["etag"])

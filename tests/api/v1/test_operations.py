import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from service import queue
from service.http.deps import Parts
from service.registry import events, operations
from service.registry.access import OWNER
from service.schemas.operations import Scope
from service.settings import Settings
from tests.webserver import Served

Bearer = Callable[..., dict[str, str]]
Sessions = sessionmaker[Session]
WAITERS = 200


@pytest.fixture
def operation_id(own_sessions: Sessions) -> str:
    """A queued operation."""
    with own_sessions.begin() as session:
        return operations.request(
            session, "build", "r", {}, by=OWNER, on=queue.GPU, limits=operations.Limits()
        ).id


@pytest.fixture
def running(own_sessions: Sessions, operation_id: str) -> str:
    """An operation at its first attempt."""
    with own_sessions.begin() as session:
        operations.begin(session, operation_id, worker="w1")
    return operation_id


@pytest.fixture
def succeed(own_sessions: Sessions) -> Callable[[str], None]:
    def succeeded(operation_id: str) -> None:
        with own_sessions.begin() as session:
            held = operations.hold(session, operation_id, 1)
            operations.succeed(session, held, {"id": "made"})

    return succeeded


def test_operations_are_listed_newest_first(client: TestClient, own_sessions: Sessions) -> None:
    for subject in "abc":
        with own_sessions.begin() as session:
            operations.request(
                session, "build", subject, {}, by=OWNER, on="gpu", limits=operations.Limits()
            )

    first = client.get("/v1/operations?limit=2&state=queued")
    second = client.get(first.links["next"]["url"])
    none = client.get("/v1/operations?state=failed")

    assert [item["subject"] for item in first.json()["items"]] == ["c", "b"]
    assert [item["subject"] for item in second.json()["items"]] == ["a"]
    assert "state=queued" in first.links["next"]["url"]
    assert none.json() == {"items": [], "next": None}


def test_an_operation_that_does_not_exist_is_not_found(client: TestClient) -> None:
    read = client.get("/v1/operations/none")
    followed = client.get("/v1/operations/none/events")

    assert (read.status_code, read.json()["detail"]) == (404, "no operation 'none'")
    assert followed.status_code == 404


def test_an_operation_is_cancelled_once(
    client: TestClient, operation_id: str, bearer: Bearer
) -> None:
    nobody = client.post(f"/v1/operations/{operation_id}/cancel")
    first = client.post(f"/v1/operations/{operation_id}/cancel", headers=bearer(Scope.PUBLISH))
    again = client.post(f"/v1/operations/{operation_id}/cancel", headers=bearer(Scope.PUBLISH))

    assert nobody.status_code == 401
    assert first.json()["state"] == "cancelled"
    assert (again.status_code, again.json()["type"]) == (409, "/problems/operation-ended")


def test_a_reader_who_waits_is_answered_when_the_operation_ends(
    client: TestClient, running: str, succeed: Callable[[str], None]
) -> None:
    timer = threading.Timer(0.5, succeed, [running])
    timer.start()
    began = time.monotonic()

    answer = client.get(f"/v1/operations/{running}", headers={"Prefer": "wait=30"})

    timer.join()
    assert answer.json()["state"] == "succeeded"
    assert answer.json()["result"] == {"id": "made"}
    assert answer.headers["preference-applied"] == "wait=30"
    assert 0.3 < time.monotonic() - began < 10


def test_a_reader_who_waited_in_vain_gets_the_operation_as_it_is(
    client: TestClient, running: str
) -> None:
    began = time.monotonic()

    answer = client.get(f"/v1/operations/{running}", headers={"Prefer": "wait=1"})

    assert answer.json()["state"] == "running"
    assert 0.9 < time.monotonic() - began < 5


def test_events_tell_each_change_and_end_with_the_operation(
    served: Served,
    running: str,
    own_sessions: Sessions,
    succeed: Callable[[str], None],
) -> None:
    url = f"{served.url}/v1/operations/{running}/events"
    with httpx2.stream("GET", url, timeout=20) as answer:
        lines = answer.iter_lines()
        first = _event(lines)
        with own_sessions.begin() as session:
            operations.report(session, running, 1, progress=0.5, message="half")
        second = _event(lines)
        succeed(running)
        last = _event(lines)
        rest = list(lines)
    seen = httpx2.get(url, headers={"Last-Event-ID": last["id"]})

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [event["event"] for event in (first, second, last)] == [
        "operation",
        "operation",
        "ended",
    ]
    assert json.loads(second["data"])["message"] == "half"
    assert json.loads(last["data"])["result"] == {"id": "made"}
    assert rest == []
    assert seen.status_code == 204


def test_many_waiters_hold_nothing_and_slow_nobody(
    served: Served,
    app: FastAPI,
    running: str,
    own_sessions: Sessions,
    succeed: Callable[[str], None],
) -> None:
    url = f"{served.url}/v1/operations/{running}"
    limits = httpx2.Limits(max_connections=None)
    with (
        httpx2.Client(timeout=60, limits=limits) as client,
        ThreadPoolExecutor(WAITERS) as pool,
    ):
        wait = {"Prefer": "wait=50"}
        waiting = [pool.submit(client.get, url, headers=wait) for _ in range(WAITERS)]
        _until(lambda: _reading(own_sessions) == 0 and _waiting(app, running) == WAITERS)
        took = sorted(_timed(client, f"{served.url}/healthz") for _ in range(100))
        began = time.monotonic()
        succeed(running)
        states = {answer.result().json()["state"] for answer in waiting}
        all_told_s = time.monotonic() - began

    assert took[94] < 0.1
    assert all_told_s < 10
    assert states == {"succeeded"}


class TestWhereReadingNeedsAToken:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"anonymous_read": False})

    def test_who_shows_none_is_turned_away(
        self, client: TestClient, operation_id: str, bearer: Bearer
    ) -> None:
        url = f"/v1/operations/{operation_id}"

        nobody = client.get(url)
        mover = client.get(url, headers=bearer(Scope.MOVE))
        reader = client.get(url, headers=bearer(Scope.READ))

        assert (nobody.status_code, nobody.json()["scope"]) == (401, "read")
        assert mover.status_code == 403
        assert reader.status_code == 200
        assert client.get("/healthz").status_code == 200


def _waiting(app: FastAPI, operation_id: str) -> int:
    parts: Parts = app.state.parts
    topics = events.of_operation(operation_id), events.of_end(operation_id)
    return sum(len(parts.listener._waiting.get(topic, ())) for topic in topics)


def _reading(sessions: Sessions) -> int:
    """How many of the service's connections are in use."""
    with sessions.begin() as session:
        found = session.scalar(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND application_name = 'patchbay web' AND state <> 'idle'"
            )
        )
    return int(found or 0)


def _timed(client: httpx2.Client, url: str) -> float:
    began = time.monotonic()
    assert client.get(url).status_code == 200
    return time.monotonic() - began


def _event(lines: Iterator[str]) -> dict[str, str]:
    event: dict[str, str] = {}
    for line in lines:
        if not line:
            break
        name, _, value = line.partition(": ")
        event[name] = value
    return event


def _until(true: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)

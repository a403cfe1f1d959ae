from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from service import queue
from service.registry import operations
from service.registry.access import OWNER


def test_a_process_that_answers_is_healthy(client: TestClient) -> None:
    answer = client.get("/healthz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert len(answer.headers["x-request-id"]) == 32


def test_without_a_worker_the_service_is_ready_and_says_so(client: TestClient) -> None:
    answer = client.get("/readyz")

    assert answer.status_code == 200
    assert answer.json() == {
        "ready": True,
        "parts": {
            "database": "ok",
            "store": "ok",
            "worker": "none alive; start one with `patchbay worker`",
        },
    }


def test_a_live_worker_is_seen_by_readiness_and_metrics(
    client: TestClient, own_sessions: sessionmaker[Session]
) -> None:
    with own_sessions.begin() as session:
        operations.worker_seen(session, "w1", [queue.GPU, queue.CPU], "cpu")
        operations.request(
            session, "build", "r", {}, by=OWNER, on=queue.GPU, limits=operations.Limits()
        )

    ready = client.get("/readyz").json()
    client.get("/v1/operations/one")
    client.get("/nowhere/at/all")
    figures = client.get("/metrics").text

    assert ready["parts"]["worker"] == "ok"
    assert 'patchbay_live_workers{queue="gpu"} 1.0' in figures
    assert 'patchbay_open_operations{queue="gpu",state="queued"} 1.0' in figures
    assert 'patchbay_http_requests_total{method="GET",route="/readyz",status="200"}' in figures
    assert 'route="/v1/operations/{operation_id}",status="404"' in figures
    assert 'route="none",status="404"' in figures


def test_a_store_that_is_gone_makes_the_service_unready(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")

    answer = client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["type"] == "/problems/not-ready"
    assert answer.json()["parts"] == {"database": "ok", "store": "its folder is gone"}
    assert int(answer.headers["retry-after"]) > 0


def test_a_request_keeps_the_id_it_came_with_where_it_is_well_formed(client: TestClient) -> None:
    kept = client.get("/healthz", headers={"X-Request-Id": "0123456789abcdef"})
    replaced = client.get("/healthz", headers={"X-Request-Id": "a b"})

    assert kept.headers["x-request-id"] == "0123456789abcdef"
    assert replaced.headers["x-request-id"] != "a b"

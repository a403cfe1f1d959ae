import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.client.client import Client
from service.client.conditions import Seen
from service.client.problem import OperationProblem, ServiceProblem
from service.client.transport import retry_after_s
from service.names import digest_of
from service.schemas.patches import Energy, RequestExtraction

MOMENT = "2026-03-01T10:30:00Z"


def operation(state: str, **changed: Any) -> dict[str, Any]:
    return {
        "id": "op-1",
        "kind": "extract",
        "subject": "ns/fog",
        "state": state,
        "progress": 0.5,
        "message": "",
        "attempt": 1,
        "result": None,
        "problem": None,
        "created_by": "owner",
        "created_at": MOMENT,
        "started_at": None,
        "ended_at": None,
    } | changed


def blob(content: bytes) -> dict[str, Any]:
    return {"digest": digest_of(content), "size_bytes": len(content)}


def test_a_busy_service_is_asked_again_when_it_says(
    client: Client, moody: Any, pauses: list[float]
) -> None:
    moody.refuse = [(503, {"Retry-After": "7"}), (429, {})]
    moody.answers[("GET", "/readyz")] = [(200, {"ready": True, "parts": {}})]

    found = client.readiness()

    assert found.ready
    assert pauses == [7.0, 1.0]


def test_a_service_that_stays_away_is_given_up(client: Client, moody: Any) -> None:
    moody.refuse = [(503, {})] * 10

    with pytest.raises(ServiceProblem) as caught:
        client.readiness()

    assert caught.value.status == 503
    assert len(moody.seen) == 4


def test_no_server_is_told_with_the_next_step(pauses: list[float]) -> None:
    with (
        Client("http://127.0.0.1:9", sleep=pauses.append) as client,
        pytest.raises(ServiceProblem, match="patchbay serve") as caught,
    ):
        client.readiness()

    assert (caught.value.status, caught.value.slug) == (0, "unreachable")


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("5", 5, 5),
        ("99999", 30, 30),
        ("-1", 0, 0),
        ("soon", 0, 0),
        ("", 0, 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 30, 30),
    ],
)
def test_retry_after_is_read_and_bounded(text: str, least: float, most: float) -> None:
    wait_s = retry_after_s(httpx2.Response(503, headers={"Retry-After": text}))

    assert least <= wait_s <= most


@pytest.mark.parametrize("body", [b"", b"<html>bad gateway</html>", b"[1]", b"\xff\xfe", b"{"])
def test_a_proxy_that_answers_without_a_problem_is_still_told(
    client: Client, moody: Any, body: bytes
) -> None:
    moody.answers[("GET", "/readyz")] = [(418, body)]

    with pytest.raises(ServiceProblem) as caught:
        client.readiness()

    assert (caught.value.status, caught.value.slug) == (418, "http-418")
    assert caught.value.detail


def test_an_answer_of_another_form_is_a_problem(client: Client, moody: Any) -> None:
    moody.answers[("GET", "/readyz")] = [(200, {"ready": "who knows"})]

    with pytest.raises(ServiceProblem) as caught:
        client.readiness()

    assert caught.value.slug == "unreadable-answer"


def test_the_token_is_sent(client: Client, moody: Any) -> None:
    moody.answers[("GET", "/readyz")] = [(200, {"ready": True, "parts": {}})]

    client.readiness()

    assert moody.seen[0][2]["Authorization"] == "Bearer secret"


def test_a_known_blob_is_not_sent(client: Client, moody: Any, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc" * 1000)
    moody.answers[("HEAD", f"/v1/blobs/{digest_of(b'abc' * 1000)}")] = [(200, {})]

    found = client.blobs.upload(file)

    assert not found.sent
    assert moody.requests("PUT") == []


def test_an_upload_is_sent_again_from_its_beginning(
    client: Client, moody: Any, tmp_path: Path
) -> None:
    content = b"abc" * 100_000
    file = tmp_path / "file"
    file.write_bytes(content)
    path = f"/v1/blobs/{digest_of(content)}"
    moody.answers[("PUT", path)] = [(503, {"detail": "later"}), (201, blob(content))]
    seen: list[tuple[int, int]] = []

    found = client.blobs.upload(file, sending=lambda *done: seen.append(done))

    assert found.sent
    assert [body for method, _, _, body in moody.seen if method == "PUT"] == [content, content]
    assert seen[-1] == (len(content), len(content))


def test_a_list_is_followed_to_its_end(client: Client, moody: Any) -> None:
    first = {"items": [operation("queued", id="a")], "next": "more"}
    last = {"items": [operation("queued", id="b")], "next": None}
    moody.answers[("GET", "/v1/operations")] = [(200, first), (200, last)]

    found = [one.id for one in client.operations.listed()]

    assert found == ["a", "b"]
    assert moody.seen[1][1].endswith("cursor=more")


def test_an_extraction_carries_one_key_through_its_tries(client: Client, moody: Any) -> None:
    moody.refuse = [(503, {})]
    moody.answers[("POST", "/v1/patches/ns/fog/extractions")] = [(202, operation("queued"))]
    wanted = RequestExtraction(clean="ns/m@1", robust="ns/r@1", layers=Energy(energy=0.9))

    client.patches.extract("ns/fog", wanted)

    keys = {headers["Idempotency-Key"] for headers in moody.requests("POST")}
    assert len(moody.requests("POST")) == 2
    assert len(keys) == 1
    assert moody.seen[-1][3].startswith(b'{"clean":"ns/m@1"')


def test_waiting_follows_the_events(client: Client, moody: Any) -> None:
    moody.answers[("GET", "/v1/operations/op-1")] = [(200, operation("queued"))]
    stream = "".join(
        f"data: {json.dumps(one)}\n\n"
        for one in (operation("running"), operation("succeeded", result={"version": 3}))
    )
    moody.answers[("GET", "/v1/operations/op-1/events")] = [(200, stream.encode())]
    states: list[str] = []

    ended = client.operations.wait("op-1", watch=lambda one: states.append(one.state))

    assert ended.result == {"version": 3}
    assert states == ["queued", "running", "succeeded"]


def test_where_events_do_not_come_through_it_asks_again(client: Client, moody: Any) -> None:
    moody.answers[("GET", "/v1/operations/op-1")] = [
        (200, operation("queued")),
        (200, operation("running")),
        (200, operation("succeeded")),
    ]
    moody.answers[("GET", "/v1/operations/op-1/events")] = [(404, {})]

    ended = client.operations.wait("op-1")

    assert ended.state == "succeeded"


def test_a_service_that_restarts_meanwhile_is_waited_for(client: Client, moody: Any) -> None:
    moody.answers[("GET", "/v1/operations/op-1")] = [
        (200, operation("running")),
        *[(503, {"detail": "restarting"})] * 9,
        (200, operation("succeeded")),
    ]
    moody.answers[("GET", "/v1/operations/op-1/events")] = [(404, {})]

    ended = client.operations.wait("op-1")

    assert ended.state == "succeeded"


def test_an_operation_that_failed_is_raised_with_its_problem(client: Client, moody: Any) -> None:
    problem = {"type": "/problems/models-differ", "detail": "the models differ", "more": 2}
    moody.answers[("GET", "/v1/operations/op-1")] = [(200, operation("failed", problem=problem))]

    with pytest.raises(OperationProblem, match="the models differ") as caught:
        client.operations.wait("op-1")

    assert caught.value.slug == "models-differ"
    assert caught.value.fields["more"] == 2


def test_a_cancelled_operation_is_not_a_success(client: Client, moody: Any) -> None:
    moody.answers[("GET", "/v1/operations/op-1")] = [(200, operation("cancelled"))]

    with pytest.raises(OperationProblem) as caught:
        client.operations.wait("op-1")

    assert caught.value.slug == "operation-cancelled"


def test_a_change_names_the_move_it_was_decided_on(client: Client, moody: Any) -> None:
    moody.refuse = [(412, {})] * 2

    seen: Seen
    for seen in (7, "nothing"):
        with pytest.raises(ServiceProblem):
            client.channels.revert("ns/stable", "clean", seen=seen)

    first, second = moody.requests("POST")
    assert first["If-Match"] == '"7"'
    assert second["If-None-Match"] == "*"

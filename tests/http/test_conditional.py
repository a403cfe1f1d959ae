from typing import Annotated

import pytest
from fastapi import FastAPI, Header, Response
from starlette.testclient import TestClient

from service.http import conditional, problems
from service.http.conditional import SeenMove, Wait
from service.http.ranges import has_it_already


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    problems.install(app)

    @app.put("/seen")
    def seen(seen: SeenMove) -> int | str | None:
        return seen

    @app.get("/waited")
    def waited(wait_s: Wait, response: Response) -> float:
        conditional.applied(response, wait_s)
        return wait_s

    @app.get("/state")
    def state(if_none_match: Annotated[str | None, Header()] = None) -> Response:
        etag = conditional.tag(7)
        if has_it_already(if_none_match, "7"):
            return conditional.not_modified(etag)
        return Response("7", headers={"ETag": etag})

    return TestClient(app)


@pytest.mark.parametrize(
    ("headers", "seen"),
    [
        ({"If-Match": '"7"'}, 7),
        ({"If-Match": 'W/"7"'}, 7),
        ({"If-None-Match": "*"}, "nothing"),
        ({"If-Match": "*"}, None),
        ({}, None),
    ],
)
def test_what_the_caller_saw_is_read(
    client: TestClient, headers: dict[str, str], seen: int | str | None
) -> None:
    assert client.put("/seen", headers=headers).json() == seen


@pytest.mark.parametrize(
    "headers",
    [
        {"If-Match": "7"},
        {"If-Match": '"7", "8"'},
        {"If-Match": '"abc"'},
        {"If-Match": '"' + "9" * 19 + '"'},
        {"If-None-Match": '"7"'},
        {"If-Match": '"7"', "If-None-Match": "*"},
    ],
)
def test_what_cannot_be_a_state_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    assert client.put("/seen", headers=headers).status_code == 400


@pytest.mark.parametrize(
    ("prefer", "wait_s", "said"),
    [
        ("wait=5", 5, "wait=5"),
        ("respond-async, wait=10", 10, "wait=10"),
        ("Wait = 600", 60, "wait=60"),
        ("handling=lenient; wait=3", 3, "wait=3"),
        ("wait=soon", 0, None),
        ("await=5", 0, None),
        ("wait=0", 0, None),
        ("", 0, None),
    ],
)
def test_a_wish_to_wait_is_heard(
    client: TestClient, prefer: str, wait_s: float, said: str | None
) -> None:
    answer = client.get("/waited", headers={"Prefer": prefer})

    assert answer.json() == wait_s
    assert answer.headers.get("preference-applied") == said


@pytest.mark.parametrize("known", ['"7"', 'W/"7"', '"6", "7"', "*"])
def test_who_has_the_state_gets_no_body(client: TestClient, known: str) -> None:
    answer = client.get("/state", headers={"If-None-Match": known})

    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"7"')


@pytest.mark.parametrize("known", ['"6"', "7", '"77"'])
def test_who_has_another_state_gets_this_one(client: TestClient, known: str) -> None:
    answer = client.get("/state", headers={"If-None-Match": known})

    assert (answer.status_code, answer.text) == (200, "7")

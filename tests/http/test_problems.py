import json
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy.exc
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient

from service import errors
from service.http import problems
from service.http.middleware import BodyLimit, Doorway
from service.schemas.wire import Problem, Scale

LIMIT_BYTES = 1000


class Sized(BaseModel):
    scale: Scale
    size: int


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    problems.install(app)
    app.add_middleware(BodyLimit, limit_bytes=LIMIT_BYTES, streamed=("/streamed",))
    app.add_middleware(Doorway)

    @app.get("/raise/{name}")
    def raise_(name: str) -> None:
        raise RAISED[name]

    @app.post("/sized")
    def sized(body: Sized) -> dict[str, int]:
        return {"size": body.size}

    @app.post("/streamed")
    async def streamed(request: Request) -> dict[str, int]:
        return {"size": len(await request.body())}

    return app


RAISED: dict[str, Exception] = {
    "moved": errors.StateMoved("channel", "a/b", seen="5", now="7"),
    "full": errors.QueueFull(1000),
    "who": errors.TokenMissing("publish"),
    "database": sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception("gone: secret")),
    "pool": sqlalchemy.exc.TimeoutError("pool"),
    "driver": psycopg.OperationalError("gone"),
    "value": sqlalchemy.exc.DataError("SELECT 1", {}, Exception("out of range")),
    "bug": ZeroDivisionError("a secret detail"),
}


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as opened:
        yield opened


def problem(answer: object) -> dict[str, object]:
    found: dict[str, object] = json.loads(answer.content)  # type: ignore[attr-defined]
    assert answer.headers["content-type"] == problems.MEDIA_TYPE  # type: ignore[attr-defined]
    Problem.model_validate(found)
    assert found["instance"] == answer.headers["x-request-id"]  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("kind", errors.leaves(), ids=lambda kind: kind.slug)
def test_every_error_has_a_status(kind: type[errors.PatchbayError]) -> None:
    assert 400 <= problems.status_of(kind) < 600


def test_slugs_are_unique() -> None:
    slugs = [kind.slug for kind in errors.leaves()]

    assert sorted(slugs) == sorted(set(slugs))


def test_an_error_becomes_a_problem_with_its_fields(client: TestClient) -> None:
    answer = client.get("/raise/moved")

    assert answer.status_code == 412
    assert problem(answer) == {
        "type": "/problems/state-moved",
        "title": "The thing changed since it was read",
        "status": 412,
        "detail": "channel 'a/b' is at 7, not 5; read it again",
        "instance": answer.headers["x-request-id"],
        "kind": "channel",
        "name": "a/b",
        "seen": "5",
        "now": "7",
    }


def test_who_must_wait_is_told_how_long(client: TestClient) -> None:
    answer = client.get("/raise/full")

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")


def test_who_is_unknown_is_told_how_to_say_it(client: TestClient) -> None:
    answer = client.get("/raise/who")

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="patchbay"'


@pytest.mark.parametrize("name", ["database", "pool", "driver"])
def test_a_database_that_does_not_answer_is_unavailable(client: TestClient, name: str) -> None:
    answer = client.get(f"/raise/{name}")

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert problem(answer)["type"] == "/problems/database-unavailable"
    assert "secret" not in answer.text


def test_a_value_that_the_database_cannot_hold_is_the_callers_mistake(client: TestClient) -> None:
    answer = client.get("/raise/value")

    assert (answer.status_code, problem(answer)["type"]) == (400, "/problems/bad-request")


def test_a_bug_is_answered_without_its_traceback(client: TestClient) -> None:
    answer = client.get("/raise/bug")

    assert answer.status_code == 500
    assert problem(answer)["title"] == "Internal Server Error"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


def test_an_address_that_does_not_exist_is_named(client: TestClient) -> None:
    answer = client.get("/nowhere")

    assert answer.status_code == 404
    assert problem(answer)["type"] == "about:blank"
    assert "/nowhere" in answer.text


def test_a_wrong_method_is_told_the_right_one(client: TestClient) -> None:
    answer = client.put("/sized", json={})

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert problem(answer)["detail"] == "PUT is not possible at /sized; use POST"


def test_wrong_fields_are_listed_without_their_values(client: TestClient) -> None:
    answer = client.post("/sized", json={"size": "hunter2", "scale": 1})

    assert answer.status_code == 422
    found = problem(answer)
    assert found["type"] == "/problems/fields-invalid"
    assert [wrong["field"] for wrong in found["errors"]] == ["body.size"]  # type: ignore[attr-defined]
    assert "hunter2" not in answer.text


def test_an_error_of_our_own_inside_a_body_keeps_its_name(client: TestClient) -> None:
    answer = client.post("/sized", json={"size": 1, "scale": "1e3"})

    assert (answer.status_code, problem(answer)["type"]) == (422, "/problems/bad-scale")


def test_a_body_that_is_no_json_is_refused(client: TestClient) -> None:
    answer = client.post("/sized", content="{", headers={"content-type": "application/json"})

    assert (answer.status_code, problem(answer)["type"]) == (422, "/problems/fields-invalid")


def test_a_body_that_announces_too_much_is_refused(client: TestClient) -> None:
    answer = client.post("/sized", content=b" " * (LIMIT_BYTES + 1))

    assert (answer.status_code, problem(answer)["type"]) == (413, "/problems/upload-too-large")


def test_a_body_that_turns_out_too_long_is_refused(client: TestClient) -> None:
    pieces = (b" " * 100 for _ in range(11))

    answer = client.post("/sized", content=pieces, headers={"content-type": "application/json"})

    assert (answer.status_code, problem(answer)["type"]) == (413, "/problems/upload-too-large")


def test_a_streamed_body_has_no_such_limit(client: TestClient) -> None:
    answer = client.post("/streamed", content=b" " * (LIMIT_BYTES + 1))

    assert answer.json() == {"size": LIMIT_BYTES + 1}


def test_a_browser_gets_a_page_where_somebody_draws_one(app: FastAPI) -> None:
    def page(request: Request, found: object) -> Response | None:
        wanted = "text/html" in request.headers.get("accept", "")
        return PlainTextResponse("drawn", status_code=418) if wanted and found else None

    problems.install(app, page)
    with TestClient(app) as client:
        drawn = client.get("/raise/moved", headers={"accept": "text/html"})
        plain = client.get("/raise/moved")

    assert (drawn.status_code, drawn.text) == (418, "drawn")
    assert plain.status_code == 412

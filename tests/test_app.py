import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service import app as web
from service import errors
from service.settings import Settings


def settings(**changed: object) -> Settings:
    given = {"database_url": "postgresql://nowhere/x", "blob_url": "/nowhere"}
    return Settings.model_validate(given | changed)


@pytest.fixture
def app() -> FastAPI:
    return web.create_app(settings())


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    # Not started: nothing here needs a database.
    return TestClient(app)


@pytest.mark.parametrize("missing", ["database_url", "blob_url"])
def test_an_application_without_a_part_is_not_made(missing: str) -> None:
    with pytest.raises(errors.PartFailed, match="PATCHBAY_DATABASE_URL"):
        web.create_app(settings(**{missing: None}))


@pytest.mark.parametrize(
    ("changed", "may_read"),
    [
        ({}, True),
        ({"host": "localhost"}, True),
        ({"host": "0.0.0.0"}, False),  # noqa: S104  # the case to tell
        ({"host": "0.0.0.0", "anonymous_read": True}, True),  # noqa: S104
        ({"anonymous_read": False}, False),
    ],
)
def test_anybody_may_read_on_loopback_alone_unless_it_is_said(
    changed: dict[str, object], *, may_read: bool
) -> None:
    assert web._anonymous_read(settings(**changed)) is may_read


def test_the_api_is_described_and_no_page_loads_from_other_hosts(client: TestClient) -> None:
    described = client.get("/openapi.json")

    assert described.json()["info"]["title"] == "Patchbay"
    assert [client.get(page).status_code for page in ("/docs", "/redoc")] == [404, 404]


def test_a_json_body_over_the_limit_is_refused_before_it_is_read(client: TestClient) -> None:
    answer = client.post("/v1/tokens", content=b" " * (web.JSON_LIMIT_BYTES + 1))

    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/upload-too-large")


def test_a_crash_at_an_address_is_a_problem_with_the_requests_id(client: TestClient) -> None:
    answer = client.get("/readyz", headers={"X-Request-Id": "0123456789"})  # never started

    assert answer.status_code == 500
    assert answer.json()["instance"] == "0123456789"
    assert "Traceback" not in answer.text

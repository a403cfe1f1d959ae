import pytest
from starlette.testclient import TestClient

from service import errors
from service.app import create_app
from service.settings import Settings


@pytest.fixture(scope="module")
def client() -> TestClient:
    # These pages need none of the parts that a start would open.
    return TestClient(
        create_app(
            Settings.model_validate(
                {"database_url": "postgresql://nowhere/x", "blob_url": "/nowhere"}
            )
        )
    )


@pytest.mark.parametrize("slug", [kind.slug for kind in errors.leaves()])
def test_every_kind_of_problem_has_a_page(client: TestClient, slug: str) -> None:
    page = client.get(f"/problems/{slug}", headers={"Accept": "text/html"})
    plain = client.get(f"/problems/{slug}")

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert slug in page.text
    assert plain.json()["type"] == f"/problems/{slug}"


def test_all_kinds_are_listed(client: TestClient) -> None:
    listed = client.get("/problems").json()["items"]

    assert len(listed) == len(errors.leaves())
    assert "state-moved" in client.get("/problems", headers={"Accept": "text/html"}).text


def test_a_kind_that_does_not_exist_is_a_problem_itself(client: TestClient) -> None:
    answer = client.get("/problems/no-such")

    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")

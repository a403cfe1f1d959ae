from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from service.http.deps import TOKEN_COOKIE
from service.schemas.operations import Scope

Bearer = Callable[..., dict[str, str]]


@pytest.fixture
def admin(bearer: Bearer) -> dict[str, str]:
    return bearer(Scope.ADMIN)


def test_a_token_is_minted_used_and_revoked(client: TestClient, admin: dict[str, str]) -> None:
    wanted = {"name": "ci", "scopes": ["read", "admin"], "expires_in_days": 1}
    minted = client.post("/v1/tokens", json=wanted, headers=admin)
    own = {"Authorization": f"Bearer {minted.json()['token']}"}
    used = client.get("/v1/tokens", headers=own)
    revoked = client.delete(f"/v1/tokens/{minted.json()['id']}", headers=admin)
    after = client.get("/v1/tokens", headers=own)

    assert (minted.status_code, minted.headers["cache-control"]) == (201, "no-store")
    assert minted.json()["created_by"] == "test"
    assert used.status_code == 200
    assert revoked.status_code == 204
    assert (after.status_code, after.json()["type"]) == (401, "/problems/token-invalid")
    assert after.headers["www-authenticate"].startswith("Bearer")


def test_the_text_of_a_token_is_shown_once(client: TestClient, admin: dict[str, str]) -> None:
    wanted = {"name": "ci", "scopes": ["read"]}
    text = client.post("/v1/tokens", json=wanted, headers=admin).json()["token"]

    listed = client.get("/v1/tokens", headers=admin)

    assert [item["name"] for item in listed.json()["items"]] == ["test", "ci"]
    assert text not in listed.text


def test_tokens_are_listed_page_by_page(client: TestClient, admin: dict[str, str]) -> None:
    for number in range(3):
        client.post("/v1/tokens", json={"name": f"t{number}", "scopes": ["read"]}, headers=admin)

    first = client.get("/v1/tokens?limit=3", headers=admin)
    second = client.get(first.links["next"]["url"], headers=admin)

    assert [item["name"] for item in first.json()["items"]] == ["test", "t0", "t1"]
    assert first.json()["next"] in first.links["next"]["url"]
    assert [item["name"] for item in second.json()["items"]] == ["t2"]
    assert second.json()["next"] is None


@pytest.mark.parametrize("cursor", ["x", "MQ", "eyJhIjoxfQ", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5"])
def test_a_cursor_from_elsewhere_is_refused(
    client: TestClient, admin: dict[str, str], cursor: str
) -> None:
    answer = client.get(f"/v1/tokens?cursor={cursor}", headers=admin)

    assert answer.status_code == (200 if cursor == "MQ" else 400)  # MQ is the number 1


def test_only_an_admin_sees_tokens(client: TestClient, bearer: Bearer) -> None:
    answer = client.get("/v1/tokens", headers=bearer(Scope.READ, Scope.PUBLISH, Scope.MOVE))

    assert (answer.status_code, answer.json()["scope"]) == (403, "admin")


def test_a_token_that_was_never_minted_is_refused(
    client: TestClient, admin: dict[str, str]
) -> None:
    unknown = client.get("/v1/tokens", headers={"Authorization": "Bearer pb_made-up"})
    other_scheme = client.get("/v1/tokens", headers={"Authorization": "Basic YTpi"})
    absent = client.delete("/v1/tokens/99", headers=admin)
    impossible = client.delete(f"/v1/tokens/{2**63}", headers=admin)

    assert (unknown.status_code, other_scheme.status_code) == (401, 401)
    assert absent.status_code == 404
    assert impossible.status_code == 422


@pytest.mark.parametrize(
    "wrong", [{"scopes": []}, {"scopes": ["all"]}, {"expires_in_days": 0}, {"extra": 1}]
)
def test_a_token_of_no_sense_is_not_minted(
    client: TestClient, admin: dict[str, str], wrong: dict[str, object]
) -> None:
    wanted = {"name": "ci", "scopes": ["read"]} | wrong

    answer = client.post("/v1/tokens", json=wanted, headers=admin)

    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/fields-invalid")


def test_a_cookie_reads_but_changes_only_from_our_own_pages(
    client: TestClient, admin: dict[str, str]
) -> None:
    client.cookies.set(TOKEN_COOKIE, admin["Authorization"].removeprefix("Bearer "))
    wanted = {"name": "ci", "scopes": ["read"]}

    read = client.get("/v1/tokens")
    unsaid = client.post("/v1/tokens", json=wanted)
    foreign = client.post("/v1/tokens", json=wanted, headers={"Origin": "http://evil.example"})
    own = client.post("/v1/tokens", json=wanted, headers={"Origin": "http://testserver"})

    assert read.status_code == 200
    assert (unsaid.status_code, foreign.status_code) == (401, 401)
    assert own.status_code == 201


def test_a_nul_character_is_refused(client: TestClient, admin: dict[str, str]) -> None:
    wanted = {"name": "a\0b", "scopes": ["read"]}

    answer = client.post("/v1/tokens", json=wanted, headers=admin)

    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/bad-request")

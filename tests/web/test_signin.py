from collections.abc import Callable
from http.cookies import SimpleCookie

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from service.db.tables.access import Token
from service.http.deps import TOKEN_COOKIE
from service.schemas.operations import Scope
from service.web.signin import safe_next
from tests.web.browsing import read

Mint = Callable[..., str]


def test_a_closed_service_asks_for_a_token_first(closed: TestClient) -> None:
    answer = closed.get("/patches?q=fog&limit=5")

    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Fpatches%3Fq%3Dfog%26limit%3D5"
    assert "set-cookie" not in answer.headers
    form = read(closed.get(answer.headers["location"]))
    assert "Sign in" in form.text


def test_a_token_opens_the_page_that_was_asked_for(closed: TestClient, token: Mint) -> None:
    text = token(Scope.READ)

    signed_in = closed.post("/login", data={"token": f" {text}\n", "next": "/patches?q=fog"})
    page = closed.get(signed_in.headers["location"])

    cookie = SimpleCookie(signed_in.headers["set-cookie"])[TOKEN_COOKIE]
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/patches?q=fog")
    assert cookie["httponly"]
    assert cookie["samesite"] == "strict"
    assert not cookie["secure"]
    assert "alice" in read(page).text


def test_over_https_the_cookie_is_secure(closed: TestClient, token: Mint) -> None:
    closed.base_url = "https://patchbay.example"

    signed_in = closed.post("/login", data={"token": token(Scope.READ)})

    assert SimpleCookie(signed_in.headers["set-cookie"])[TOKEN_COOKIE]["secure"]


def test_whoever_signs_out_is_asked_again(closed: TestClient, token: Mint) -> None:
    closed.post("/login", data={"token": token(Scope.READ)})

    out = closed.post("/logout")

    assert out.headers["location"] == "/login"
    assert closed.get("/").status_code == 303


def test_a_wrong_token_is_told_and_kept_nowhere(closed: TestClient) -> None:
    for text in ("pb_wrong", "", "ä\x00"):
        answer = closed.post("/login", data={"token": text, "next": "/models"})

        assert answer.status_code == 403
        assert "The token is not known" in read(answer).text
        assert 'value="/models"' in answer.text
        assert "pb_wrong" not in answer.text
        assert "set-cookie" not in answer.headers


def test_a_token_that_may_not_read_is_refused(closed: TestClient, token: Mint) -> None:
    answer = closed.post("/login", data={"token": token(Scope.PUBLISH)})

    assert answer.status_code == 403
    assert "'read'" in read(answer).text


def test_a_token_that_was_revoked_is_forgotten(
    closed: TestClient, token: Mint, own_sessions: sessionmaker[Session]
) -> None:
    closed.post("/login", data={"token": token(Scope.READ)})
    with own_sessions.begin() as session:
        session.query(Token).delete()

    answer = closed.get("/channels")
    form = closed.get(answer.headers["location"])

    assert answer.headers["location"] == "/login?next=%2Fchannels&ended=1"
    assert "Your token has ended" in read(form).text
    assert TOKEN_COOKIE not in closed.cookies


def test_a_form_of_another_site_is_refused(client: TestClient, token: Mint) -> None:
    origin = {"Origin": "https://elsewhere.example"}

    answer = client.post("/login", data={"token": token(Scope.READ)}, headers=origin)
    out = client.post("/logout", headers={"Origin": "null"})

    assert (answer.status_code, out.status_code) == (400, 400)
    assert "set-cookie" not in answer.headers


def test_a_form_that_is_none_is_refused(client: TestClient) -> None:
    for body in (b"\xff", b"a=1&" * 100):
        assert client.post("/login", content=body).status_code == 400


def test_a_link_on_another_site_leads_to_the_page_for_whoever_is_signed_in(
    closed: TestClient,
) -> None:
    first = closed.get("/channels?limit=5", headers={"Sec-Fetch-Site": "cross-site"})
    again = closed.get("/channels?limit=5", headers={"Sec-Fetch-Site": "same-origin"})

    read(first)
    assert 'http-equiv="refresh" content="0;url=/channels?limit=5"' in first.text
    assert again.headers["location"].startswith("/login")


@pytest.mark.parametrize(
    "address",
    [
        *("//elsewhere", "/\\elsewhere", "/\t/elsewhere", "/ /x", "\\\\x", "https://x/", ""),
        *("javascript:alert(1)", "elsewhere", "/a\nb", "/login", "/login?next=/login", "/logout"),
    ],
)
def test_the_way_on_never_leads_elsewhere(address: str) -> None:
    assert safe_next(address) == "/"


@given(st.text(alphabet="/\\\t\n :.ab?=#@"))
def test_the_way_on_is_a_path_of_this_host(address: str) -> None:
    found = safe_next(address)

    assert found.startswith("/")
    assert found[1:2] not in {"/", "\\"}
    assert found in {"/", address}

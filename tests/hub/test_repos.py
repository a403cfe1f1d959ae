from collections.abc import Callable
from typing import Any

import pytest

from tests.hub.shelf import FILE, Shelf

Get = Callable[[str], Any]


def test_a_model_is_described_at_any_revision(shelf: Shelf, get: Get) -> None:
    main = get("/api/models/vision/net")
    recipe = get("/api/models/vision/net/revision/main%2Bfog%3D0.5?blobs=true")

    assert main["id"] == "vision/net"
    assert main["sha"] != recipe["sha"] == shelf.commit
    assert {"tiny", "license:mit", "recipe:1+fog~1=0.5"} <= set(recipe["tags"])
    siblings = {each["rfilename"]: each for each in recipe["siblings"]}
    assert siblings.keys() == {FILE, "config.json", "sub/vocab.txt"}
    assert siblings[FILE]["size"] == siblings[FILE]["lfs"]["size"] == len(shelf.patched)
    assert get(f"/api/models/vision/net/revision/{recipe['sha']}")["sha"] == recipe["sha"]


def test_aliases_are_branches_and_versions_are_tags_whose_commits_hold(
    shelf: Shelf, get: Get
) -> None:
    refs = get("/api/models/vision/net/refs")

    main = get("/api/models/vision/net")["sha"]
    assert refs["branches"] == [{"name": "main", "ref": "refs/heads/main", "targetCommit": main}]
    assert refs["tags"] == [{"name": "v1", "ref": "refs/tags/v1", "targetCommit": main}]
    assert shelf.client.head(f"/vision/net/resolve/{main}/{FILE}").status_code == 200


def test_the_commits_of_a_recipe_end_with_its_base(get: Get) -> None:
    commits = get("/api/models/vision/net/commits/main%2Bfog%3D0.5")

    assert [commit["title"] for commit in commits] == ["vision/net@1+fog~1=0.5", "version 1"]
    assert commits[0]["date"].endswith("Z")


@pytest.fixture(scope="module")
def many(shelf: Shelf) -> Shelf:
    for name in ("zoo/ant", "zoo/bee", "zoo/cat"):
        shelf.publish(name, {FILE: shelf.clean}, labels=["animal", name[-3:]])
    return shelf


def names(models: list[dict[str, Any]]) -> list[str]:
    return [model["id"] for model in models]


@pytest.mark.usefixtures("many")
def test_models_are_searched_by_words_author_and_labels(get: Get) -> None:
    assert names(get("/api/models?search=zoo+ee")) == ["zoo/bee"]
    assert names(get("/api/models?author=vision&limit=1")) == ["vision/net"]
    assert names(get("/api/models?filter=animal&filter=cat&full=True&sort=likes")) == ["zoo/cat"]
    assert names(get("/api/models?filter=license%3Amit")) == ["vision/net"]


def test_a_list_is_followed_by_absolute_links_that_keep_the_question(many: Shelf) -> None:
    seen: list[str] = []
    address: str | None = "/api/models?author=zoo&limit=2"
    while address:
        answer = many.client.get(address)
        seen += names(answer.json())
        link = answer.headers.get("link")
        assert link is None or link.startswith("<http://testserver/api/models?author=zoo&limit=2&")
        address = answer.links["next"]["url"] if link else None

    assert seen == ["zoo/ant", "zoo/bee", "zoo/cat"]


def test_a_token_is_shown_whose_it_is(shelf: Shelf) -> None:
    nobody = shelf.client.get("/api/whoami-v2")
    owner = shelf.client.get("/api/whoami-v2", headers=shelf.owner)

    assert nobody.status_code == 401
    assert owner.json()["name"] == "owner"
    assert owner.json()["auth"]["accessToken"]["role"] == "write"


@pytest.mark.parametrize(
    "address", ["/api/whoami-v2", "/api/models/vision/net", "/vision/net/resolve/main/config.json"]
)
def test_a_token_that_nobody_knows_is_refused_in_the_words_that_clients_know(
    shelf: Shelf, address: str
) -> None:
    answer = shelf.client.get(address, headers={"Authorization": "Bearer pb_wrong"})

    assert answer.status_code == 401
    assert answer.headers["x-error-message"] == "Invalid credentials in Authorization header"
    assert "x-error-code" not in answer.headers


def test_where_reading_needs_a_token_nobody_else_learns_what_exists(shelf: Shelf) -> None:
    addresses = (
        "/api/models",
        "/api/models/vision/net",
        "/api/models/vision/net/refs",
        "/api/models/vision/nope",
        "/vision/net/resolve/main/config.json",
        "/vision/nope/resolve/main/config.json",
    )

    with shelf.another_process(anonymous_read=False) as closed:
        nobody = [closed.get(address) for address in addresses]
        owner = [closed.get(each, headers=shelf.owner).status_code for each in addresses]

    assert {(a.status_code, a.headers["x-error-code"]) for a in nobody} == {(401, "RepoNotFound")}
    assert len({answer.headers["x-error-message"] for answer in nobody}) == 1
    assert owner == [200, 200, 200, 404, 200, 404]


def test_access_can_be_checked(shelf: Shelf) -> None:
    check = "/api/models/vision/net/auth-check"

    assert shelf.client.get(check).status_code == 200
    assert shelf.client.get(f"{check}/write").status_code == 401
    assert shelf.client.get(f"{check}/write", headers=shelf.owner).status_code == 200

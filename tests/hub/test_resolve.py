import hashlib

import pytest

from service.hub import building
from tests.hub.shelf import FILE, RECIPE, Shelf

QUOTED = "main%2Bfog%3D0.5"
URL = f"/vision/net/resolve/{QUOTED}/{FILE}"


def test_a_recipe_is_a_revision_and_its_etag_is_the_sha256_of_the_patched_file(
    shelf: Shelf,
) -> None:
    head, got = shelf.client.head(URL), shelf.client.get(URL)

    assert (head.status_code, head.content) == (200, b"")
    assert got.content == shelf.patched != shelf.clean
    for answer in (head, got):
        assert answer.headers["etag"] == f'"{hashlib.sha256(shelf.patched).hexdigest()}"'
        assert answer.headers["x-repo-commit"] == shelf.commit
        assert answer.headers["content-length"] == str(len(shelf.patched))
        assert answer.headers["accept-ranges"] == "bytes"
        assert not [name for name in answer.headers if "xet" in name or name == "link"]


@pytest.mark.parametrize(
    "revision", [RECIPE, "v1+fog~1=0.50", "1%2Bvision.fog%3D0.5", "MAIN+FOG=0.5"]
)
def test_the_same_recipe_written_otherwise_is_the_same_commit(shelf: Shelf, revision: str) -> None:
    answer = shelf.client.head(f"/vision/net/resolve/{revision}/{FILE}")

    assert answer.headers["x-repo-commit"] == shelf.commit


def test_a_commit_leads_to_its_recipe_in_any_process(shelf: Shelf) -> None:
    by_commit = f"/vision/net/resolve/{shelf.commit}/{FILE}"

    with shelf.another_process() as other:
        got = other.get(by_commit)

    assert got.content == shelf.patched
    assert got.headers["x-repo-commit"] == shelf.commit


def test_ranges_are_those_of_a_plain_file(shelf: Shelf) -> None:
    part = shelf.client.get(URL, headers={"Range": "bytes=100-299"})
    outside = shelf.client.get(URL, headers={"Range": f"bytes={len(shelf.patched)}-"})
    known = shelf.client.get(URL, headers={"If-None-Match": part.headers["etag"]})

    assert (part.status_code, part.content) == (206, shelf.patched[100:300])
    assert part.headers["content-range"] == f"bytes 100-299/{len(shelf.patched)}"
    assert outside.status_code == 416
    assert outside.headers["content-range"] == f"bytes */{len(shelf.patched)}"
    assert known.status_code == 304


@pytest.mark.parametrize("revision", ["main", "v1", QUOTED])
def test_a_plain_file_has_one_etag_whatever_the_recipe(shelf: Shelf, revision: str) -> None:
    answer = shelf.client.get(f"/vision/net/resolve/{revision}/sub/vocab.txt")

    assert answer.content == b"a\nb\n"
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("revision", ["main", QUOTED])
def test_a_file_that_is_not_there_is_told_with_the_commit(
    shelf: Shelf, method: str, revision: str
) -> None:
    answer = shelf.client.request(method, f"/vision/net/resolve/{revision}/tokenizer.json")

    assert (answer.status_code, answer.headers["x-error-code"]) == (404, "EntryNotFound")
    assert len(answer.headers["x-repo-commit"]) == 40


@pytest.mark.parametrize(
    ("revision", "told"),
    [
        ("nightly", "alias"),
        ("v9", "vision/net@9"),
        ("main%2Bhaze%3D1", "no patch 'vision/haze'"),
        ("main%2Bfog", "write fog=1"),
        ("main%2Bfog%3D11", "outside"),
        ("main%2Bfog%3D.5", "no digit before the point"),
        ("main%2Bfog%3D1e3", "exponent"),
        ("main@fog", "BAD"),
        ("main%2Fx", ""),
        ("..%2F..", ""),
        ("%0d%0aX-Evil:1", ""),
        ("%E9%9B%A8", ""),
        ("0" * 40, "no commit"),
        ("A" * 40, ""),
    ],
)
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_what_is_no_revision_is_told_so_and_why(
    shelf: Shelf, method: str, revision: str, told: str
) -> None:
    answer = shelf.client.request(method, f"/vision/net/resolve/{revision}/{FILE}")

    assert (answer.status_code, answer.headers["x-error-code"]) == (404, "RevisionNotFound")
    assert told.lower() in answer.headers["x-error-message"].lower() or told == "BAD"
    assert "x-evil" not in answer.headers


@pytest.mark.parametrize(
    "address",
    [
        "/vision/other/resolve/main/config.json",
        "/gpt2/resolve/main/config.json",
        "/datasets/vision/net/resolve/main/config.json",
        "/-vision/net/resolve/main/config.json",
    ],
)
def test_what_is_no_model_is_no_repository(shelf: Shelf, address: str) -> None:
    answer = shelf.client.head(address)

    assert (answer.status_code, answer.headers["x-error-code"]) == (404, "RepoNotFound")


def test_a_commit_belongs_to_its_model(shelf: Shelf) -> None:
    shelf.publish("vision/apart", {FILE: shelf.patched})

    answer = shelf.client.head(f"/vision/apart/resolve/{shelf.commit}/{FILE}")

    assert (answer.status_code, answer.headers["x-error-code"]) == (404, "RevisionNotFound")


def test_a_recipe_too_long_for_a_file_name_is_told_its_commit(shelf: Shelf) -> None:
    recipe = "main" + "%2Bfog%3D0.01" * 30

    refused = shelf.client.get(f"/api/models/vision/net/revision/{recipe}", headers=shelf.owner)
    message = refused.headers["x-error-message"]
    commit = message.rpartition(" ")[2]
    found = shelf.client.get(f"/api/models/vision/net/revision/{commit}")

    assert (refused.status_code, refused.headers["x-error-code"]) == (404, "RevisionNotFound")
    assert "242" in message
    assert found.json()["sha"] == commit
    assert found.json()["patchbay"]["reference"] == "vision/net@1+fog~1=0.3"


def test_the_commit_that_is_told_of_a_missing_file_holds_as_any_other(shelf: Shelf) -> None:
    missing = "/vision/net/resolve/main%2Bfog%3D0.0123/tokenizer.json"

    commit = shelf.client.head(missing, headers=shelf.owner).headers["x-repo-commit"]
    config = shelf.client.get(f"/vision/net/resolve/{commit}/config.json")

    assert (config.status_code, config.headers["x-repo-commit"]) == (200, commit)


def test_what_is_worth_a_second_look_is_told_once_by_the_client(shelf: Shelf) -> None:
    bold = "/vision/net/resolve/main%2Bfog%3D3/config.json"

    told = shelf.client.head(bold, headers=shelf.owner).headers["x-hf-warning"]

    topic, _, message = told.partition("; ")
    assert topic == "recipe"
    assert "accuracy usually falls outside scales 0 to 1.5" in message


# ── what is not ready ────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("a_worker")
def test_who_waits_too_long_is_told_to_come_again(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "WAIT_S", 0.05)
    unbuilt = f"/vision/net/resolve/main%2Bfog%3D0.75/{FILE}"

    head = shelf.client.head(unbuilt, headers=shelf.owner)
    got = shelf.client.get(unbuilt, headers=shelf.owner)

    assert (head.status_code, got.status_code) == (503, 429)
    assert head.headers["retry-after"] == got.headers["retry-after"] == "2"
    assert "x-error-code" not in head.headers


def test_a_plain_file_of_a_recipe_never_waits_for_its_build(shelf: Shelf) -> None:
    address = "/vision/net/resolve/main%2Bfog%3D0.125/config.json"

    assert shelf.client.get(address, headers=shelf.owner).content == b'{"a": 1}'


def test_who_shows_no_token_is_told_that_building_needs_one(shelf: Shelf) -> None:
    answer = shelf.client.head(f"/vision/net/resolve/main%2Bfog%3D0.625/{FILE}")

    assert (answer.status_code, answer.headers["x-error-code"]) == (401, "GatedRepo")
    assert "HF_TOKEN" in answer.headers["x-error-message"]

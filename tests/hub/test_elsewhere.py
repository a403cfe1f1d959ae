import pytest

from tests.hub.shelf import Shelf


@pytest.mark.parametrize(
    ("method", "address"),
    [
        ("POST", "/api/repos/create"),
        ("DELETE", "/api/repos/delete"),
        ("POST", "/api/repos/move"),
        ("PUT", "/api/models/vision/net/settings"),
        ("POST", "/api/models/vision/net/preupload/main"),
        ("POST", "/api/models/vision/net/commit/main"),
        ("POST", "/api/models/vision/net/branch/dev"),
        ("DELETE", "/api/models/vision/net/branch/dev"),
        ("POST", "/api/models/vision/net/tag/main"),
        ("DELETE", "/api/models/vision/net/tag/x"),
        ("POST", "/api/validate-yaml"),
        ("POST", "/vision/net.git/info/lfs/objects/batch"),
    ],
)
def test_writing_is_refused_with_the_name_of_our_own_way(
    shelf: Shelf, method: str, address: str
) -> None:
    answer = shelf.client.request(method, address, headers=shelf.owner)

    assert answer.status_code == 403
    assert "patchbay push" in answer.headers["x-error-message"]
    assert answer.json() == {"error": answer.headers["x-error-message"]}


@pytest.mark.parametrize(
    "address",
    [
        "/api/agent-harnesses",
        "/api/telemetry/x",
        "/api/nothing",
        "/api/models/vision/net/discussions",
        "/api/models/vision/net/xet-read-token/main",
        "/api/models/vision/net/safetensors-metadata/model.safetensors.index.json",
    ],
)
def test_what_the_hub_has_besides_is_cleanly_absent(shelf: Shelf, address: str) -> None:
    answer = shelf.client.get(address)

    assert answer.status_code == 404
    assert "x-error-code" not in answer.headers


@pytest.mark.parametrize("address", ["/api/datasets/a/b", "/api/spaces/a/b", "/api/models/gpt2"])
def test_other_kinds_of_repositories_are_not_there(shelf: Shelf, address: str) -> None:
    answer = shelf.client.get(address)

    assert (answer.status_code, answer.headers["x-error-code"]) == (404, "RepoNotFound")


def test_our_own_addresses_are_never_taken_for_the_hubs(shelf: Shelf) -> None:
    answer = shelf.client.get("/v1/models/resolve/main/config.json")

    assert answer.headers["content-type"] == "application/problem+json"

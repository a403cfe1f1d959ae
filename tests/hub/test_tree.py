from collections.abc import Callable
from typing import Any

import pytest

from service.names import digest_of
from tests.hub.shelf import FILE, Shelf

TREE = "/api/models/vision/net/tree/main%2Bfog%3D0.5"
Get = Callable[[str], Any]


def test_a_tree_names_the_sha256_of_every_file(shelf: Shelf, get: Get) -> None:
    items = {item["path"]: item for item in get(f"{TREE}?recursive=true&expand=false")}

    assert list(items) == ["config.json", FILE, "sub", "sub/vocab.txt"]
    lfs = items[FILE]["lfs"]
    assert "sha256:" + lfs["oid"] == digest_of(shelf.patched)
    assert items[FILE]["size"] == lfs["size"] == len(shelf.patched)
    assert "sha256:" + items["sub/vocab.txt"]["lfs"]["oid"] == digest_of(b"a\nb\n")
    assert items["sub"]["type"] == "directory"
    assert not any("xet" in key.lower() for item in items.values() for key in item)


def test_a_tree_that_is_not_recursive_stops_at_folders(get: Get) -> None:
    assert [item["path"] for item in get(TREE)] == ["config.json", FILE, "sub"]
    assert [item["path"] for item in get(f"{TREE}/sub")] == ["sub/vocab.txt"]


@pytest.mark.parametrize("folder", ["additional_chat_templates", "sub%2Fdeeper", "su"])
def test_a_folder_that_is_not_there_is_no_entry(shelf: Shelf, folder: str) -> None:
    answer = shelf.client.get(f"{TREE}/{folder}")

    assert (answer.status_code, answer.headers["x-error-code"]) == (404, "EntryNotFound")
    assert answer.headers["x-repo-commit"] == shelf.commit


def test_paths_are_asked_for_as_a_form_and_what_is_missing_is_left_out(shelf: Shelf) -> None:
    answer = shelf.client.post(
        "/api/models/vision/net/paths-info/main%2Bfog%3D0.5",
        data={"paths": [FILE, "sub", "nothing"], "expand": "false"},
    )

    assert [item["path"] for item in answer.json()] == [FILE, "sub"]
    assert "sha256:" + answer.json()[0]["lfs"]["oid"] == digest_of(shelf.patched)


def test_a_tree_of_what_is_not_built_asks_to_come_again(shelf: Shelf) -> None:
    tree = "/api/models/vision/net/tree/main%2Bfog%3D0.375"

    answer = shelf.client.get(tree, headers=shelf.owner)

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
    assert "worker" in answer.headers["x-error-message"]

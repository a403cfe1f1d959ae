# mypy: ignore-errors
# It runs in an environment of its own, whose packages are not here.
"""Asks a huggingface_hub for what must be refused: be_refused.py REPO REVISION.

Prints JSON: for each attempt the exception's class, those it derives from, and its message.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

from huggingface_hub import HfApi, hf_hub_download

FILE = "model.safetensors"


def main() -> None:
    repo, revision = sys.argv[1:]
    api, stranger = HfApi(), HfApi(token="hf_wrong")  # noqa: S106
    attempts: dict[str, Callable[[], Any]] = {
        "file": lambda: hf_hub_download(repo, "nothing.json", revision=revision),
        "patch": lambda: hf_hub_download(repo, FILE, revision="main+nothing=1"),
        "scale": lambda: api.model_info(repo, revision="main+nothing=abc"),
        "model": lambda: api.model_info(repo + "-not"),
        "token": lambda: stranger.model_info(repo),
        "login": stranger.whoami,
        "create": lambda: api.create_repo("clients/new"),
        "upload": lambda: api.upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id=repo),
        "tag": lambda: api.create_tag(repo, tag="x"),
        "branch": lambda: api.create_branch(repo, branch="x"),
        "move": lambda: api.move_repo(repo, "clients/elsewhere"),
        "delete": lambda: api.delete_repo(repo),
        "delete_file": lambda: api.delete_file("config.json", repo),
    }
    print(json.dumps({name: outcome(attempt) for name, attempt in attempts.items()}))  # noqa: T201


def outcome(attempt: Callable[[], Any]) -> list[Any]:
    try:
        attempt()
    except Exception as error:  # noqa: BLE001  # which one is what is asked for
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return [kinds, str(error)]
    return [[], ""]


main()

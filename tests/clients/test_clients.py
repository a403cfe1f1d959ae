"""Unmodified Hugging Face clients, in their own processes, against the running service."""

import hashlib
import json
from typing import Any, Final

import pytest
from safetensors.numpy import load

from tests.clients.conftest import Client
from tests.e2e.bench import Bench

pytestmark = [pytest.mark.clients, pytest.mark.xdist_group("clients")]

REPO: Final = "clients/mixin"
RECIPE: Final = "main+mixin-fog=0.5"
FILE: Final = "model.safetensors"
FILES: Final = ["README.md", "config.json", "docs/card.txt", FILE]


def weights(bench: Bench, model: str, recipe: str) -> bytes:
    """The file as our own interface sends it."""
    answer = bench.weights(recipe, model)
    assert answer.status_code == 200, answer.text
    return answer.content


def hexdigest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_everything_that_reads_reads_a_recipe(client: Client, bench: Bench) -> None:
    patched = weights(bench, "mixin", RECIPE)

    found = client.program("read_hub", REPO, RECIPE)

    assert client.name == f"hub-{found['version']}"
    assert found["download"] == found["by_commit"] == hexdigest(patched)
    assert found["snapshot"][FILE] == hexdigest(patched)
    assert sorted(found["snapshot"]) == found["files"] == found["info"]["files"] == FILES
    assert found["commit"] == found["info"]["sha"]
    assert found["tree"] == ["README.md", "config.json", "docs", "docs/card.txt", FILE]
    assert (found["paths"], found["searched"]) == ([FILE], [REPO, f"{REPO}-robust"])
    assert (len(found["models"]), len(found["all_models"])) == (3, 6)
    assert found["refs"] == [["main"], ["v1"]]
    assert found["commits"] == ["clients/mixin@1+mixin-fog~1=0.5", "version 1"]
    assert found["parameters"] == sum(tensor.size for tensor in load(patched).values())
    assert found["range"] == hexdigest(patched[8:108])
    assert found["exists"] == [True, False, True, False, True, False]
    assert found["whoami"] == "owner"


def test_what_cannot_be_is_told_by_the_exceptions_that_users_catch(client: Client) -> None:
    outcomes: dict[str, Any] = client.program("be_refused", REPO, "main")

    kinds = {name: found[0] for name, found in outcomes.items()}
    messages = {name: found[1] for name, found in outcomes.items()}
    assert "EntryNotFoundError" in kinds["file"]
    assert "RevisionNotFoundError" in kinds["patch"]
    assert "RevisionNotFoundError" in kinds["scale"]
    assert "RepositoryNotFoundError" in kinds["model"]
    assert "no patch 'clients/nothing'" in messages["patch"]
    for name in ("token", "login"):
        assert "RepositoryNotFoundError" not in kinds[name], messages[name]
        assert "HfHubHTTPError" in kinds[name] or "Invalid user token" in messages[name]
    for name in ("create", "upload", "tag", "branch", "move", "delete", "delete_file"):
        assert "HfHubHTTPError" in kinds[name], name
        assert "patchbay push" in messages[name], name


def test_a_caller_without_a_token_is_told_that_building_needs_one(client: Client) -> None:
    script = (
        "from huggingface_hub import hf_hub_download as d;"
        f"d({REPO!r}, {FILE!r}, revision='main+mixin-fog=0.0625', token=False)"
    )

    done = client.run("python", "-c", script)

    assert "this recipe is not built yet" in done.stderr


def test_a_commit_outlives_a_restart(newest: Client, bench: Bench) -> None:
    patched = weights(bench, "mixin", RECIPE)
    commit = newest.program("read_hub", REPO, RECIPE)["commit"]
    script = (
        "import hashlib, pathlib, huggingface_hub as h;"
        f"p = h.hf_hub_download({REPO!r}, {FILE!r}, revision={commit!r}, cache_dir='anew');"
        "print(hashlib.sha256(pathlib.Path(p).read_bytes()).hexdigest())"
    )
    newest.service.restart()

    done = newest.run("python", "-c", script)

    assert done.stdout.strip() == hexdigest(patched), done.stderr


# ── the command line ─────────────────────────────────────────────────────────────────────────


def test_the_command_line_downloads_a_recipe_and_verifies_it(client: Client, bench: Bench) -> None:
    patched = weights(bench, "mixin", RECIPE)
    into = client.home / "here"

    fetched = client.run("hf", "download", REPO, "--revision", RECIPE, "--local-dir", str(into))
    verified = client.run("hf", "download", REPO, "--revision", RECIPE)
    if client.name != "hub-0.36.2":  # which has no `cache verify` yet
        verified = client.run("hf", "cache", "verify", REPO, "--revision", RECIPE)

    assert fetched.returncode == 0, fetched.stderr
    assert (into / FILE).read_bytes() == patched
    assert verified.returncode == 0, verified.stderr


def test_a_flipped_byte_is_found_by_cache_verify(newest: Client) -> None:
    assert newest.run("hf", "download", REPO, "--revision", RECIPE).returncode == 0
    (file,) = (newest.home / "hf").rglob(f"snapshots/*/{FILE}")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.resolve().write_bytes(bytes(content))

    verified = newest.run("hf", "cache", "verify", REPO, "--revision", RECIPE)

    assert verified.returncode != 0


def test_the_command_line_lists_and_describes(newest: Client) -> None:
    listed = newest.run("hf", "models", "ls", "--author", "clients", "--json")
    info = newest.run("hf", "models", "info", REPO, "--revision", RECIPE)
    whoami = newest.run("hf", "auth", "whoami")

    assert REPO in listed.stdout, listed.stderr
    assert "recipe:1+mixin-fog~1=0.5" in info.stdout, info.stderr
    assert "owner" in whoami.stdout, whoami.stderr


# ── libraries ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("library", "model"), [("transformers", "bert"), ("timm", "resnet"), ("mixin", "mixin")]
)
def test_a_library_loads_a_recipe_as_any_revision(
    newest: Client, bench: Bench, library: str, model: str
) -> None:
    recipe = f"main+{model}-fog=0.5"
    patched, clean = (load(weights(bench, model, each)) for each in (recipe, "main"))

    loaded = newest.program("load_models", library, f"clients/{model}", recipe)

    changed = [name for name in patched if patched[name].tobytes() != clean[name].tobytes()]
    assert changed
    for name, tensor in patched.items():
        assert loaded[name] == hexdigest(tensor.tobytes()), name


def test_a_second_load_asks_the_service_once_and_fetches_nothing(newest: Client) -> None:
    words = ("transformers", "clients/bert", "main+bert-fog=0.25")
    first = newest.program("load_models", *words)
    blobs = sorted(path.name for path in (newest.home / "hf").rglob("blobs/*"))

    again = newest.program("load_models", *words)

    assert again == first
    assert sorted(path.name for path in (newest.home / "hf").rglob("blobs/*")) == blobs
    assert json.dumps(again)

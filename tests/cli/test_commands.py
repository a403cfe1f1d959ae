import time
from pathlib import Path
from shutil import copyfile, copytree
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from service.cli import exits
from service.cli.exits import Exit
from service.client.client import Client
from service.client.problem import ServiceProblem
from service.layout.pieces import file_digest
from service.local.commands import app as local_app
from tests.cli.conftest import Command, tensors

pytestmark = pytest.mark.usefixtures("published")

RECIPE = "vision/net@main+fog=0.5"


@pytest.fixture
def mine(models: Path, tmp_path: Path) -> Path:
    """The user's own copy of the base."""
    path = tmp_path / "mine.safetensors"
    copyfile(models / "clean.safetensors", path)
    return path


def digests(folder: Path) -> dict[str, str]:
    return {path.name: file_digest(path) for path in folder.iterdir()}


# ── models and patches ───────────────────────────────────────────────────────────────────────


def test_the_same_files_again_are_the_same_version(patchbay: Command, models: Path) -> None:
    made = patchbay("push", "vision/net", models / "clean.safetensors").json

    assert made["reference"] == "vision/net@1"


def test_what_is_said_of_a_model_is_shown(patchbay: Command, tmp_path: Path, models: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text("# Told")

    patchbay("push", "told/net", models / "clean.safetensors", "--card", card, "--label", "cnn")

    shown = patchbay("show", "told/net").json
    assert (shown["card"], shown["labels"]) == ("# Told", ["cnn"])


def test_pushing_without_a_card_keeps_the_one_there_is(
    patchbay: Command, tmp_path: Path, models: Path
) -> None:
    card = tmp_path / "card.md"
    card.write_text("# Kept")
    patchbay("push", "kept/net", models / "clean.safetensors", "--card", card)

    patchbay("push", "kept/net", models / "robust.safetensors", "--license", "MIT")

    shown = patchbay("show", "kept/net").json
    assert (shown["card"], shown["license"], shown["head"]) == ("# Kept", "MIT", 2)


def test_a_checkpoint_is_pushed_converted_and_told_of(patchbay: Command, tmp_path: Path) -> None:
    shared = torch.ones(2)
    state = {"z.weight": torch.zeros(2, 2), "a": shared, "b": shared}
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "pytorch_model.bin")
    (tmp_path / "optimizer.pt").write_bytes(b"not sent")

    made = patchbay("push", "checkpoints/net", tmp_path).json

    assert [file["path"] for file in made["files"]] == ["model.safetensors"]
    assert [tied["name"] for tied in made["conversion"]["tied"]] == ["b"]
    assert [left["name"] for left in made["conversion"]["left_out"]] == ["epoch"]


def test_files_that_make_no_version_are_refused_before_they_are_sent(
    patchbay: Command, tmp_path: Path
) -> None:
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"one of two")

    ended = patchbay("push", "checkpoints/half", tmp_path)

    assert ended.code == Exit.INVALID
    assert "model-00002-of-00002.safetensors missing" in ended.err


def test_an_order_of_tensors_is_pushed_with_them(
    patchbay: Command, client: Client, models: Path, tmp_path: Path
) -> None:
    order = tmp_path / "order"
    order.write_text("conv1.weight\nconv2.weight\n")
    files = [models / "clean.safetensors", "--forward-order", order]

    made = patchbay("push", "ordered/net", *files).json

    placed = {t.name: t.place for t in client.models.tensors("ordered/net", made["number"])}
    assert (placed["conv1.weight"], placed["conv2.weight"], placed["fc.weight"]) == (0, 1, None)


def test_a_dry_run_tells_and_leaves_nothing_in_the_catalogue(patchbay: Command) -> None:
    told = patchbay(
        *("extract", "vision/net", "vision/net-robust", "--patch", "vision/dry", "--dry-run")
    ).json

    assert told["result"]["dry_run"]
    assert patchbay("show", "vision/dry").code == Exit.NOT_FOUND


def test_an_extraction_that_fails_ends_with_one(
    patchbay: Command, models: Path, tmp_path: Path
) -> None:
    broken = load_file(models / "robust.safetensors")
    broken["conv2.weight"][0, 0, 0, 0] = np.nan
    save_file(broken, tmp_path / "broken.safetensors")
    patchbay("push", "vision/broken", tmp_path / "broken.safetensors")

    ended = patchbay("extract", "vision/net", "vision/broken", "--patch", "vision/none")

    assert ended.code == Exit.FAILED
    assert "NaN" in ended.err


def test_a_patch_goes_out_and_comes_back_as_the_same_file(
    patchbay: Command, tmp_path: Path
) -> None:
    file = tmp_path / "fog.rws.safetensors"
    pulled = patchbay("pull", "vision/fog", "--patch", "-o", file).json

    made = patchbay("publish", "vision/again", file).json

    assert made["digest"] == pulled["digest"] == file_digest(file)


# ── weights ──────────────────────────────────────────────────────────────────────────────────


def test_pulled_applied_and_locally_built_are_the_same_bytes(
    patchbay: Command, mine: Path, tmp_path: Path
) -> None:
    patch, local = tmp_path / "fog.rws.safetensors", tmp_path / "local.safetensors"
    pulled, copy = tmp_path / "pulled.safetensors", tmp_path / "copy.safetensors"

    patchbay("pull", RECIPE, "-o", pulled)
    patchbay("apply", mine, RECIPE, "-o", copy)
    patchbay("pull", "vision/fog", "--patch", "-o", patch)
    words = ["apply", str(mine), "--patch", f"{patch}=0.5", "-o", str(local), "--device", "cpu"]
    assert exits.run(local_app, words) == Exit.OK
    patchbay("apply", mine, RECIPE)

    assert len({file_digest(path) for path in (pulled, copy, local, mine)}) == 1
    assert not np.array_equal(load_file(pulled)["conv2.weight"], tensors(0)["conv2.weight"])


def test_undo_needs_no_service(patchbay: Command, mine: Path) -> None:
    before = file_digest(mine)
    patchbay("apply", mine, RECIPE)

    ended = patchbay("undo", mine, "--url", "http://127.0.0.1:9")

    assert ended.code == Exit.OK
    assert file_digest(mine) == before
    assert not mine.with_name(mine.name + ".patchbay").exists()


def test_one_recipe_takes_the_place_of_another(
    patchbay: Command, mine: Path, tmp_path: Path
) -> None:
    patchbay("apply", mine, RECIPE)

    patchbay("apply", mine, "vision/net@main+fog=-1")

    patchbay("pull", "vision/net@main+fog=-1", "-o", tmp_path / "pulled.safetensors")
    assert file_digest(mine) == file_digest(tmp_path / "pulled.safetensors")


def test_the_clean_base_is_a_recipe_too(patchbay: Command, mine: Path) -> None:
    before = file_digest(mine)
    patchbay("apply", mine, RECIPE)

    patchbay("apply", mine, "vision/net@main")

    assert file_digest(mine) == before


def test_whoever_patches_in_place_is_told_that_the_file_was_verified(
    patchbay: Command, mine: Path
) -> None:
    for words in (
        ("pull", RECIPE, "--into", mine),
        ("apply", mine, RECIPE),
        ("pull", RECIPE, "--patch-only", "--into", mine),
        ("pull", "vision/net@main", "--into", mine),
        ("pull", "vision/net@main", "--into", mine),
    ):
        told = patchbay(*words).json

        assert told["verified"] is True, words
        assert list(told["files"].values()) == [file_digest(mine)], words


def test_a_file_pulled_with_its_patch_on_can_be_undone(
    patchbay: Command, models: Path, tmp_path: Path
) -> None:
    pulled = tmp_path / "pulled.safetensors"
    patchbay("pull", RECIPE, "-o", pulled)

    ended = patchbay("undo", pulled)

    assert ended.code == Exit.OK
    assert file_digest(pulled) == file_digest(models / "clean.safetensors")


def test_what_is_here_already_is_not_fetched_again(patchbay: Command, tmp_path: Path) -> None:
    pulled = tmp_path / "pulled.safetensors"
    patchbay("pull", RECIPE, "-o", pulled)
    before = pulled.stat().st_mtime_ns

    patchbay("pull", RECIPE, "-o", pulled)

    assert pulled.stat().st_mtime_ns == before


def test_a_sharded_model_is_pulled_patched_and_undone_as_one(
    patchbay: Command, models: Path, tmp_path: Path
) -> None:
    recipe = "vision/sharded@main+fog=0.5"
    pulled, own = tmp_path / "pulled", tmp_path / "own"
    copytree(models / "clean", own)

    assert patchbay("pull", recipe, "-o", pulled).code == Exit.OK
    assert patchbay("apply", own, recipe).code == Exit.OK

    assert digests(pulled) == digests(own)
    assert digests(own) != digests(models / "clean")
    assert patchbay("undo", own).code == Exit.OK
    assert digests(own) == digests(models / "clean")


def test_another_file_than_the_base_is_refused(
    patchbay: Command, models: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    copyfile(models / "robust.safetensors", other)
    before = file_digest(other)

    ended = patchbay("apply", other, RECIPE)

    assert ended.code == Exit.NOT_VERIFIED
    assert file_digest(other) == before
    assert [path.name for path in tmp_path.iterdir()] == ["other.safetensors"]


def test_a_link_is_refused_with_the_way_out(patchbay: Command, mine: Path) -> None:
    link = mine.with_name("link.safetensors")
    link.symlink_to(mine)

    ended = patchbay("apply", link, RECIPE)

    assert ended.code == Exit.CONFLICT
    assert "-o FILE" in ended.err


def test_a_patched_file_is_proven_without_its_digest(client: Client, tmp_path: Path) -> None:
    build = client.builds.ready(RECIPE)
    [file] = build.files
    pulled = client.builds.weights(build.id, file, tmp_path / "pulled")

    client.builds._prove(build.id, file, pulled.path)

    assert pulled.digest == client.weights.fetch(RECIPE, tmp_path / "through").digest


# ── channels ─────────────────────────────────────────────────────────────────────────────────


def entered(move: Any) -> dict[str, float]:
    return {part["patch"]: part["scale"] for part in move["entered"]}


def test_a_channel_is_pointed_changed_reverted_and_pulled(
    patchbay: Command, models: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.safetensors"

    patchbay("channel", "point", "vision/stable", RECIPE)
    scaled = patchbay("channel", "rescale", "vision/stable", "fog=0.8").json
    dropped = patchbay("channel", "drop", "vision/stable", "fog").json
    added = patchbay("channel", "add", "vision/stable", "vision/fog~1=-0.25").json
    back = patchbay("channel", "revert", "vision/stable", "1").json
    patchbay("channel", "pull", "vision/stable", "-o", out)
    patched = file_digest(out)
    clean = patchbay("channel", "revert", "vision/stable").json
    patchbay("channel", "pull", "vision/stable", "-o", out)

    assert [entered(move) for move in (scaled, dropped, added, back, clean)] == [
        {"vision/fog": 0.8},
        {},
        {"vision/fog": -0.25},
        {"vision/fog": 0.5},
        {},
    ]
    assert patched != file_digest(out) == file_digest(models / "clean.safetensors")
    assert not out.with_name(out.name + ".patchbay").exists()
    history = patchbay("channel", "history", "vision/stable").json
    assert [move["number"] for move in history] == [6, 5, 4, 3, 2, 1]


def test_a_change_decided_on_an_older_move_is_refused(patchbay: Command) -> None:
    patchbay("channel", "point", "vision/pinned", RECIPE)
    patchbay("channel", "rescale", "vision/pinned", "fog=0.8")

    ended = patchbay("channel", "rescale", "vision/pinned", "fog=0.9", "--if-move", "1")

    assert ended.code == Exit.CONFLICT
    assert patchbay("channel", "show", "vision/pinned").json["move"] == 2


def test_a_deleted_channel_is_gone_and_can_begin_anew(patchbay: Command) -> None:
    patchbay("channel", "point", "vision/brief", RECIPE)

    patchbay("channel", "rm", "vision/brief")

    assert patchbay("channel", "show", "vision/brief").code == Exit.NOT_FOUND
    assert patchbay("channel", "point", "vision/brief", RECIPE).code == Exit.OK


def test_a_channel_that_has_not_moved_answers_304(client: Client, tmp_path: Path) -> None:
    with pytest.raises(ServiceProblem) as caught:
        client.channels.weights("vision/none", tmp_path / "file")
    client.channels.point("vision/polled", RECIPE, seen="nothing")
    first = client.channels.weights("vision/polled", tmp_path / "file")
    assert first is not None

    second = client.channels.weights("vision/polled", tmp_path / "again", etag=first.etag)

    assert caught.value.status == 404
    assert second is None


# ── looking around, and being refused ────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "reference",
    ["vision/net", "vision/net@1", "vision/fog", "vision/fog@1", RECIPE, "vision/net@main"],
)
def test_whatever_has_a_reference_can_be_shown(patchbay: Command, reference: str) -> None:
    assert patchbay("show", reference).json


@pytest.mark.parametrize("kind", ["models", "patches", "channels", "builds"])
def test_lists_are_json_for_scripts(patchbay: Command, kind: str) -> None:
    assert isinstance(patchbay("ls", kind).json, list)


def test_a_token_does_what_its_scopes_say_until_it_is_revoked(
    patchbay: Command, models: Path
) -> None:
    made = patchbay("token", "create", "ci", "--scope", "read").json

    push = ("push", "vision/net", models / "clean.safetensors", "--token", made["token"])
    refused = patchbay(*push)
    patchbay("token", "revoke", made["id"])
    revoked = patchbay("ls", "--token", made["token"])

    assert (refused.code, revoked.code) == (Exit.REFUSED, Exit.REFUSED)
    assert made["token"] not in patchbay("token", "ls").out


def test_operations_are_listed_shown_and_watched(patchbay: Command) -> None:
    newest = patchbay("ops", "ls", "--limit", "1").json[0]

    shown = patchbay("ops", "show", newest["id"]).json

    assert shown["id"] == newest["id"]
    assert patchbay("ops", "cancel", newest["id"]).code == Exit.CONFLICT


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["show", "vision/nothing"], Exit.NOT_FOUND),
        (["build", "vision/net@main+nothing=1"], Exit.NOT_FOUND),
        (["pull", "vision/net@7"], Exit.NOT_FOUND),
        (["pull", "vision/nothing", "--patch"], Exit.NOT_FOUND),
        (["build", "vision/net@main+fog=0.12345"], Exit.INVALID),
        (["build", "vision/net@main+fog"], Exit.INVALID),
        (["push", "v1/net", __file__], Exit.INVALID),
        (["push", "vision/odd", __file__], Exit.INVALID),
        (["publish", "vision/odd", __file__], Exit.INVALID),
        (["ops", "show", "../models"], Exit.NOT_FOUND),
        (["ls", "--token", "wrong"], Exit.REFUSED),
    ],
)
def test_what_cannot_be_done_ends_with_the_code_that_says_why(
    patchbay: Command, words: list[str], code: Exit
) -> None:
    ended = patchbay(*words)

    assert ended.code == code
    assert "Traceback" not in ended.err


def test_what_fits_is_listed_from_either_side(patchbay: Command) -> None:
    bases = patchbay("fits", "vision/fog").json
    patches = patchbay("fits", "vision/sharded").json

    assert {(row["reference"], row["fit"]) for row in bases} >= {
        ("vision/net@1", "same_base"),
        ("vision/sharded@1", "same_architecture"),
    }
    assert "vision/fog@1" in [row["reference"] for row in patches]
    assert patchbay("fits", "no/such").code == Exit.NOT_FOUND


# ── pulling little ───────────────────────────────────────────────────────────────────────────


def _into(patchbay: Command, mine: Path, recipe: str, *more: str) -> bytes:
    assert patchbay("pull", recipe, "--into", mine, *more).code == Exit.OK
    return mine.read_bytes()


def test_a_base_here_becomes_a_build_another_and_the_base_again(
    patchbay: Command, mine: Path, tmp_path: Path
) -> None:
    base = mine.read_bytes()
    half, full = (
        Path(patchbay("pull", f"vision/net@main+fog={scale}", "-o", tmp_path / scale).json["path"])
        for scale in ("0.5", "1")
    )

    assert _into(patchbay, mine, RECIPE) == half.read_bytes()
    assert _into(patchbay, mine, "vision/net@main+fog=1") == full.read_bytes()
    assert _into(patchbay, mine, "vision/net@1") == base


def test_a_build_that_came_some_other_way_is_recognised(
    patchbay: Command, client: Client, tmp_path: Path
) -> None:
    build = client.builds.ready(RECIPE)
    found = client.builds.weights(build.id, build.files[0], tmp_path / "by-curl.safetensors")
    deadline = time.monotonic() + 60
    while client.builds.get(build.id).files[0].sha256 is None:  # hashed in the background
        assert time.monotonic() < deadline
        time.sleep(0.1)
    full = Path(patchbay("pull", "vision/net@main+fog=1", "-o", tmp_path / "full").json["path"])

    changed = _into(patchbay, found.path, "vision/net@main+fog=1")

    assert changed == full.read_bytes()


def test_a_file_pulled_whole_becomes_its_base_with_a_record_or_without(
    patchbay: Command, client: Client, mine: Path, tmp_path: Path
) -> None:
    base = mine.read_bytes()
    pulled = Path(patchbay("pull", RECIPE, "-o", tmp_path / "pulled").json["path"])
    stray = Path(copyfile(pulled, tmp_path / "stray"))
    while client.builds.ready(RECIPE).files[0].sha256 is None:  # hashed in the background
        time.sleep(0.1)

    assert _into(patchbay, pulled, "vision/net@1") == base
    assert _into(patchbay, stray, "vision/net@1") == base
    assert _into(patchbay, mine, "vision/net@1") == base  # which it was


def test_a_build_of_one_model_is_not_made_the_base_of_another(
    patchbay: Command, mine: Path
) -> None:
    patched = _into(patchbay, mine, RECIPE)

    ended = patchbay("pull", "vision/net-robust@1", "--into", mine)

    assert ended.code == Exit.NOT_VERIFIED
    assert mine.read_bytes() == patched


def test_a_file_that_nobody_knows_is_left_alone(patchbay: Command, mine: Path) -> None:
    content = bytearray(mine.read_bytes())
    content[-1] ^= 1
    mine.write_bytes(content)

    ended = patchbay("pull", RECIPE, "--into", mine)

    assert ended.code == Exit.NOT_VERIFIED
    assert mine.read_bytes() == bytes(content)


@pytest.mark.parametrize("model", ["net", "sharded"])
def test_a_patch_alone_gives_the_same_bytes(
    patchbay: Command, models: Path, tmp_path: Path, model: str
) -> None:
    recipe = f"vision/{model}@1+fog=-0.25"
    clean = models / "clean" if model == "sharded" else models / "clean.safetensors"
    here, there = tmp_path / "here", tmp_path / "there"

    computed = patchbay("apply", clean, recipe, "-o", here, "--patch-only")
    pulled = patchbay("pull", recipe, "-o", there)

    assert (computed.code, pulled.code) == (Exit.OK, Exit.OK)
    files = pulled.json["files"]
    assert computed.json["files"] == files
    assert {path: (here / path if here.is_dir() else here).read_bytes() for path in files} == {
        path: (there / path if there.is_dir() else there).read_bytes() for path in files
    }


def test_a_patch_alone_goes_onto_a_patched_file(patchbay: Command, mine: Path) -> None:
    _into(patchbay, mine, RECIPE)

    changed = _into(patchbay, mine, "vision/net@main+fog=1", "--patch-only")

    assert changed == _into(patchbay, mine, "vision/net@main+fog=1")
    assert patchbay("undo", mine).code == Exit.OK

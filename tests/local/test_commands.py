import json
from decimal import Decimal
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from service.cli import exits
from service.cli.exits import Exit
from service.layout.pieces import file_digest
from service.local import work
from service.local.commands import app
from service.local.files import read_model, read_patch


def tensors(seed: int) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    generator = np.random.default_rng(seed)
    shapes = {"conv1.weight": (8, 3, 3, 3), "conv1.bias": (8,), "conv2.weight": (16, 8, 3, 3)}
    return {name: generator.standard_normal(s, dtype=np.float32) for name, s in shapes.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A clean model, a robust one close by, and their origin."""
    clean = tensors(0)
    save_file(clean, tmp_path / "clean.safetensors")
    save_file(
        {n: v + tensors(1)[n] / 20 for n, v in clean.items()}, tmp_path / "robust.safetensors"
    )
    save_file(
        {n: v + tensors(2)[n] / 10 for n, v in clean.items()}, tmp_path / "origin.safetensors"
    )
    return tmp_path


def run(folder: Path, *words: str) -> int:
    """Run a command; words that name a file of the folder become its path."""
    return exits.run(app, [str(folder / w) if "safetensors" in w else w for w in words])


@pytest.fixture
def patch(folder: Path) -> Path:
    ended = run(
        folder,
        *("extract", "clean.safetensors", "robust.safetensors", "--origin", "origin.safetensors"),
        *("-o", "p.rws.safetensors", "--all", "--quality", "exact", "--device", "cpu"),
    )
    assert ended == Exit.OK
    return folder / "p.rws.safetensors"


def test_a_plain_difference_at_scale_one_gives_the_robust_model(folder: Path) -> None:
    first = run(
        folder,
        *("extract", "clean.safetensors", "robust.safetensors", "-o", "p.rws.safetensors"),
        *("--all", "--quality", "exact", "--projection", "none"),
    )
    second = run(
        folder,
        *("apply", "clean.safetensors", "--patch", "p.rws.safetensors=1"),
        *("-o", "out.safetensors"),
    )

    assert (first, second) == (Exit.OK, Exit.OK)
    wanted, found = (load_file(folder / f"{n}.safetensors") for n in ("robust", "out"))
    assert all(np.allclose(wanted[name], found[name], atol=1e-6) for name in wanted)


@pytest.mark.usefixtures("patch")
def test_a_copy_and_a_patch_in_place_are_the_same_bytes(folder: Path) -> None:
    copyfile(folder / "clean.safetensors", folder / "mine.safetensors")
    run(
        folder,
        *("apply", "clean.safetensors", "--patch", "p.rws.safetensors=-0.5"),
        *("-o", "copy.safetensors"),
    )

    run(folder, "apply", "mine.safetensors", "--patch", "p.rws.safetensors=-0.5")

    assert file_digest(folder / "mine.safetensors") == file_digest(folder / "copy.safetensors")
    assert file_digest(folder / "mine.safetensors") != file_digest(folder / "clean.safetensors")


@pytest.mark.usefixtures("patch")
def test_undo_gives_the_base_back(folder: Path) -> None:
    before = file_digest(folder / "clean.safetensors")
    run(folder, "apply", "clean.safetensors", "--patch", "p.rws.safetensors=0.5")

    ended = run(folder, "undo", "clean.safetensors")

    assert ended == Exit.OK
    assert file_digest(folder / "clean.safetensors") == before
    assert not (folder / "clean.safetensors.patchbay").exists()


@pytest.mark.usefixtures("patch")
def test_a_second_recipe_needs_the_base_first(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder, "apply", "clean.safetensors", "--patch", "p.rws.safetensors=0.5")

    ended = run(folder, "apply", "clean.safetensors", "--patch", "p.rws.safetensors=1")

    assert ended == Exit.CONFLICT
    assert "undo" in capsys.readouterr().err


@pytest.mark.usefixtures("patch")
def test_a_linked_file_is_refused_with_the_way_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "link.safetensors").symlink_to(folder / "clean.safetensors")

    ended = run(folder, "apply", "link.safetensors", "--patch", "p.rws.safetensors=0.5")

    assert ended == Exit.CONFLICT
    assert "-o FILE" in capsys.readouterr().err


@pytest.mark.parametrize("scale", ["1e3", "0.12345", "11", "x", ""])
def test_a_scale_that_is_none_is_refused(folder: Path, patch: Path, scale: str) -> None:
    ended = run(folder, "apply", "clean.safetensors", "--patch", f"{patch.name}={scale}")

    assert ended == Exit.INVALID
    assert not (folder / "clean.safetensors.patchbay").exists()


def test_a_patch_without_a_scale_is_told_how(
    folder: Path, patch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = run(folder, "apply", "clean.safetensors", "--patch", patch.name)

    assert ended == Exit.INVALID
    assert "safetensors=1" in capsys.readouterr().err


def test_the_order_of_patches_does_not_matter(folder: Path, patch: Path) -> None:
    second = folder / "q.rws.safetensors"
    run(
        folder,
        *("extract", "clean.safetensors", "origin.safetensors", "-o", second.name),
        *("--first", "1"),
    )
    base = read_model(folder / "clean.safetensors", lambda *_: None)
    texts = [f"{patch}=0.3", f"{second}=-0.7"]

    digests = []
    for order in (texts, texts[::-1]):
        patches = [read_patch(text) for text in order]
        with work.built(base, patches, patch, device="cpu", told=lambda *_: None) as change:
            digests.append((change.recipe.digest, change.files["clean.safetensors"].overlay_digest))

    assert digests[0] == digests[1]


def test_a_folder_of_shards_is_patched_as_one(folder: Path) -> None:
    clean, robust = folder / "clean", folder / "robust"
    for name, place in (("clean", clean), ("robust", robust)):
        place.mkdir()
        whole = load_file(folder / f"{name}.safetensors")
        save_file({"conv1.weight": whole["conv1.weight"]}, place / "one.safetensors")
        rest = {n: v for n, v in whole.items() if n != "conv1.weight"}
        save_file(rest, place / "two.safetensors")
        (place / "config.json").write_text("{}")
    out, copy = folder / "p.rws.safetensors", folder / "copy"
    before = {path.name: file_digest(path) for path in clean.iterdir()}

    extracted = exits.run(app, ["extract", str(clean), str(robust), "-o", str(out), "--all"])
    copied = exits.run(app, ["apply", str(clean), "--patch", f"{out}=1", "-o", str(copy)])
    applied = exits.run(app, ["apply", str(clean), "--patch", f"{out}=1"])

    assert (extracted, copied, applied) == (0, 0, 0)
    patched = {path.name: file_digest(path) for path in clean.iterdir()}
    assert patched == {path.name: file_digest(path) for path in copy.iterdir()}
    assert exits.run(app, ["undo", str(clean)]) == Exit.OK
    assert {path.name: file_digest(path) for path in clean.iterdir()} == before


def test_scales_that_cancel_change_nothing(folder: Path, patch: Path) -> None:
    both = ("--patch", f"{patch.name}=0.5", "--patch", f"{patch.name}=-0.5")

    ended = run(folder, "apply", "clean.safetensors", *both, "-o", "out.safetensors")

    assert ended == Exit.OK
    assert file_digest(folder / "out.safetensors") == file_digest(folder / "clean.safetensors")


def test_inspect_tells_a_patch_from_a_model(
    folder: Path, patch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    run(folder, "inspect", patch.name, "--json")
    of_patch = json.loads(capsys.readouterr().out)
    run(folder, "inspect", "clean.safetensors", "--json")
    of_model = json.loads(capsys.readouterr().out)

    assert (of_patch["kind"], of_model["kind"]) == ("patch", "weights")
    assert of_patch["version"] == "2"
    assert of_model["tensors"][0]["dtype"] == "F32"
    assert str(folder) not in json.dumps(of_patch)


def test_a_patch_of_which_nothing_fits_is_refused_and_nothing_written(
    folder: Path, patch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"other.weight": np.zeros((2, 2), "f4")}, folder / "other.safetensors")

    ended = run(
        folder,
        *("apply", "other.safetensors", "--patch", f"{patch.name}=1", "-o", "out.safetensors"),
    )

    assert ended == Exit.CONFLICT
    assert "does not fit other.safetensors" in capsys.readouterr().err
    assert not (folder / "out.safetensors").exists()


def test_names_that_are_inspected_are_not_shortened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "encoder." + "block." * 30 + "weight"
    save_file({name: np.zeros((2, 2), "f4")}, tmp_path / "clean.safetensors")

    run(tmp_path, "inspect", "clean.safetensors")

    assert name in capsys.readouterr().out


def test_a_dry_run_writes_no_patch(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = run(
        folder,
        *("extract", "clean.safetensors", "robust.safetensors", "-o", "p.rws.safetensors"),
        *("--dry-run", "--json"),
    )

    assert ended == Exit.OK
    assert json.loads(capsys.readouterr().out)["path"] is None
    assert not (folder / "p.rws.safetensors").exists()


def test_a_file_that_is_no_model_is_refused(folder: Path) -> None:
    (folder / "bad.safetensors").write_bytes(b"not at all")

    ended = run(
        folder, "extract", "clean.safetensors", "bad.safetensors", "-o", "p.rws.safetensors"
    )

    assert ended == Exit.INVALID
    assert sorted(path.name for path in folder.iterdir() if "p.rws" in path.name) == []


@pytest.mark.parametrize(("text", "scale"), [("a=b=0.5", "0.5"), ("p=-1", "-1")])
def test_the_scale_stands_behind_the_last_sign(patch: Path, text: str, scale: str) -> None:
    place = patch.with_name(text.rpartition("=")[0])
    copyfile(patch, place)

    found = read_patch(f"{place}={scale}")

    assert found.patch.scale == Decimal(scale)
    assert found.path == place

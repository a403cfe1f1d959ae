"""`patchbay local extract` of several robust models, with an order of one's own, and dry."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from service.cli import exits
from service.cli.exits import Exit
from service.local.commands import app

SHAPES = {"conv1.weight": (8, 3, 3, 3), "conv1.bias": (8,), "conv2.weight": (16, 8, 3, 3)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A clean model, and two robust ones close by."""
    generator = np.random.default_rng(1)
    clean = {n: generator.standard_normal(s, dtype=np.float32) for n, s in SHAPES.items()}
    save_file(clean, tmp_path / "clean.safetensors")
    for name in ("fog", "snow"):
        moved = {n: t + generator.standard_normal(t.shape) / 20 for n, t in clean.items()}
        save_file({n: t.astype("f4") for n, t in moved.items()}, tmp_path / f"{name}.safetensors")
    return tmp_path


def _run(folder: Path, *words: str) -> int:
    return exits.run(app, [str(folder / w) if "." in w else w for w in ("extract", *words)])


def test_several_models_give_the_files_that_each_alone_gives(folder: Path) -> None:
    together = _run(
        folder,
        *("clean.safetensors", "fog.safetensors", "snow.safetensors", "--all"),
        *("-o", "fog.rws.safetensors", "-o", "snow.rws.safetensors"),
        *("--profile", "fog.json", "--profile", "snow.json"),
    )
    alone = [
        _run(folder, "clean.safetensors", f"{n}.safetensors", "--all", "-o", f"{n}.alone")
        for n in ("fog", "snow")
    ]

    assert (together, *alone) == (Exit.OK, Exit.OK, Exit.OK)
    for name in ("fog", "snow"):
        made = (folder / f"{name}.rws.safetensors").read_bytes()
        assert made == (folder / f"{name}.alone").read_bytes()
        assert json.loads((folder / f"{name}.json").read_bytes())["totals"]["kernels_kept"] == 2


@pytest.mark.parametrize("outs", [["a.p"], ["a.p", "a.p"], ["a.p", "b.p", "c.p"]])
def test_each_robust_model_needs_a_file_of_its_own(folder: Path, outs: list[str]) -> None:
    named = [word for out in outs for word in ("-o", out)]

    ended = _run(folder, "clean.safetensors", "fog.safetensors", "snow.safetensors", *named)

    assert ended == Exit.USAGE


def test_a_dry_run_prints_what_each_choice_would_keep(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("clean.safetensors", "fog.safetensors", "--dry-run")
    before = sorted(folder.iterdir())
    assert _run(folder, *words) == Exit.OK
    printed = capsys.readouterr().out
    assert _run(folder, *words, "--json") == Exit.OK

    found = json.loads(capsys.readouterr().out)
    assert [choice["layers"] for choice in found["summary"]["choices"]][-2:] == [
        {"first": 1},
        "all",
    ]
    rows = [line.split() for line in printed.splitlines()]
    assert ["all", "2", "1368", "100%"] in [row[:4] for row in rows]
    assert "times the rounding of the models' dtypes" in printed
    assert sorted(folder.iterdir()) == before


def test_an_order_of_ones_own_decides_which_kernels_come_first(folder: Path) -> None:
    (folder / "order.txt").write_text("conv2.weight")

    ended = _run(
        folder,
        *("clean.safetensors", "fog.safetensors", "-o", "fog.p", "--first", "1"),
        *("--forward-order", "order.txt", "--profile", "profile.json"),
    )

    assert ended == Exit.OK
    profile = json.loads((folder / "profile.json").read_bytes())
    assert profile["order"] == "given"
    assert [kernel["name"] for kernel in profile["kernels"] if kernel["kept"]] == ["conv2.weight"]

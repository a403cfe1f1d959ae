"""Patch files compared and identified with no server."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from service.cli import exits
from service.cli.exits import Exit
from service.local.commands import app


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Patch files by name: `unknown` is most like `fog`."""
    folder = tmp_path_factory.mktemp("patches")
    shape = (16, 8, 3, 3)
    random = {seed: np.random.default_rng(seed).standard_normal(shape) for seed in range(5)}
    steps = {"fog": random[1], "rain": random[2], "snow": random[3]}
    steps["unknown"] = random[1] + random[4]
    save_file({"conv.weight": random[0].astype("f4")}, folder / "clean.safetensors")
    found = {}
    for name, step in steps.items():
        robust = (random[0] + step / 20).astype("f4")
        save_file({"conv.weight": robust}, folder / "robust.safetensors")
        found[name] = folder / f"{name}.rws.safetensors"
        pair = [str(folder / f"{side}.safetensors") for side in ("clean", "robust")]
        words = ["extract", *pair, "-o", str(found[name]), "--all", "--device", "cpu"]
        assert exits.run(app, words) == Exit.OK
    return found


def run(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert exits.run(app, [*map(str, words), "--device", "cpu"]) == Exit.OK
    return capsys.readouterr().out


def test_files_are_compared_each_with_each(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    three = [files[name] for name in ("fog", "rain", "unknown")]

    found = json.loads(run(capsys, "compare", *three, "--json"))
    told = run(capsys, "compare", *three)

    assert found["cosines"][0][2] == pytest.approx(0.71, abs=0.08)
    assert abs(found["cosines"][0][1]) < 0.15
    assert "+1.000" in told


def test_an_unknown_file_is_told_by_the_names_of_others(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    known = [files[name] for name in ("rain", "fog", "snow")]

    found = json.loads(run(capsys, "identify", files["unknown"], *known, "--json"))
    told = run(capsys, "identify", files["unknown"], *known)

    assert (found["label"], found["trusted"]) == ("fog", True)
    assert told.startswith("fog (confidence")


def test_a_file_named_twice_is_refused(files: dict[str, Path]) -> None:
    assert exits.run(app, ["compare", *[str(files["fog"])] * 2]) == Exit.USAGE

"""The commands that compare, balance and identify.

On an architecture that no other test publishes, so that theirs are nobody's neighbours.
"""

from pathlib import Path

import pytest
from safetensors.numpy import save_file

from service.cli import exits
from service.cli.commands import app
from service.cli.exits import Exit
from tests.cli.conftest import Command, Tensors, near, tensors
from tests.service_process import ServiceProcess

NET, FOG, RAIN = (f"likeness/{name}" for name in ("net", "fog", "rain"))
BOTH = f"{NET}@main+fog=1+rain=0.5"


@pytest.fixture(scope="module")
def rain(served: ServiceProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patches on one base, and the file of the second."""
    folder = tmp_path_factory.mktemp("likeness")
    file = folder / "rain.rws.safetensors"
    commands = [["push", NET, _saved(folder / "net", tensors(0))]]
    for name, seed in ((FOG, 1), (RAIN, 7)):
        robust = f"{name}-robust"
        commands += [
            ["push", robust, _saved(folder / f"robust-{seed}", near(tensors(0), seed))],
            ["extract", NET, robust, "--patch", name, "--all"],
        ]
    commands += [["pull", RAIN, "--patch", "-o", str(file)]]
    for words in commands:
        assert exits.run(app, [*words, "--url", served.url, "--token", served.token]) == 0
    return file


def _saved(folder: Path, net: Tensors) -> str:
    folder.mkdir()
    path = folder / "model.safetensors"
    save_file({f"likeness.{name}": value for name, value in net.items()}, path)
    return str(path)


@pytest.mark.usefixtures("rain")
def test_a_balanced_recipe_is_not_warned_of_as_a_plain_sum(spoken: Command) -> None:
    plain, balanced = spoken("show", BOTH).out, spoken("show", BOTH, "--balance").out

    assert "plain sums of several patches interfere" in plain
    assert "plain sums" not in balanced
    assert ", reaches 100%" in balanced


@pytest.mark.usefixtures("rain")
def test_a_matrix_for_people_has_a_column_a_patch(spoken: Command) -> None:
    shown = spoken("similar", FOG, RAIN).out

    assert [len(line.split()) for line in shown.splitlines()] == [2, 4, 4]


@pytest.mark.usefixtures("rain")
def test_neighbours_and_matrices_are_listed(patchbay: Command) -> None:
    listed = patchbay("similar", RAIN).json
    matrix = patchbay("similar", FOG, f"{RAIN}@1").json
    opposed = patchbay("similar", f"{RAIN}@1", "--sign", "negative").json

    found = {row["reference"]: row["cosine"] for row in listed}
    assert list(found) == [f"{FOG}@1"]
    assert matrix["patches"] == [f"{FOG}@1", f"{RAIN}@1"]
    assert found[f"{FOG}@1"] == pytest.approx(matrix["cosines"][0][1], abs=1e-6)
    assert all(row["cosine"] < 0 for row in opposed)


@pytest.mark.usefixtures("rain")
def test_a_balanced_recipe_is_shown_and_built(patchbay: Command) -> None:
    plain = patchbay("show", BOTH).json
    shown = patchbay("show", BOTH, "--balance", "--interference").json
    built = patchbay("build", BOTH, "--balance").json

    assert plain["composition"] is None
    assert shown["composition"]["balance"]["wanted"] != shown["composition"]["balance"]["solved"]
    assert len(shown["composition"]["interference"]) == 1
    assert built["recipe"]["digest"] == shown["digest"] != plain["digest"]


@pytest.mark.usefixtures("rain")
def test_people_read_how_the_patches_meet(
    served: ServiceProcess, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--url", served.url, "--token", served.token]

    exits.run(app, ["show", BOTH, "--balance", "--interference", *options])
    shown = capfd.readouterr().out
    exits.run(app, ["similar", FOG, RAIN, *options])
    matrix = capfd.readouterr().out
    exits.run(app, ["similar", RAIN, *options])
    listed = capfd.readouterr().out

    assert "in place of 0.5" in shown
    assert "condition number" in shown
    assert "conv2.weight" in shown
    assert "+1.000" in matrix
    assert f"{FOG}@1" in listed


def test_an_unknown_file_or_pair_is_identified(patchbay: Command, rain: Path) -> None:
    by_file = patchbay("identify", rain).json
    by_pair = patchbay("identify", NET, f"{RAIN}-robust").json

    assert (by_file["label"], by_pair["label"]) == ("rain", "rain")
    assert by_file["patches"][0]["cosine"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("words", [["nowhere.safetensors"], ["a/b", "c/d", "e/f"]])
def test_identify_takes_a_file_or_two_models(patchbay: Command, words: list[str]) -> None:
    assert patchbay("identify", *words).code == Exit.USAGE

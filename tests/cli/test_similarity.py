"""The commands that compare, balance and identify."""

from pathlib import Path

import pytest
from safetensors.numpy import save_file

from service.cli import exits
from service.cli.commands import app
from service.cli.exits import Exit
from tests.cli.conftest import Command, near, tensors
from tests.service_process import ServiceProcess

BOTH = "vision/net@main+fog=1+likeness-rain=0.5"


@pytest.fixture(scope="module")
def rain(published: str, served: ServiceProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second patch on the same base, and its file."""
    folder = tmp_path_factory.mktemp("rain")
    save_file(near(tensors(0), 7), folder / "rain.safetensors")
    options = ["--url", served.url, "--token", served.token]
    name = f"{published}/likeness-rain"
    file = folder / "rain.rws.safetensors"
    for words in (
        ["push", "vision/net-rain", str(folder / "rain.safetensors")],
        ["extract", "vision/net", "vision/net-rain", "--patch", name, "--all"],
        ["pull", name, "--patch", "-o", str(file)],
    ):
        assert exits.run(app, [*words, *options]) == 0
    return file


@pytest.mark.usefixtures("rain")
def test_a_balanced_recipe_is_not_warned_of_as_a_plain_sum(spoken: Command) -> None:
    plain, balanced = spoken("show", BOTH).out, spoken("show", BOTH, "--balance").out

    assert "plain sums of several patches interfere" in plain
    assert "plain sums" not in balanced
    assert ", reaches 100%" in balanced


@pytest.mark.usefixtures("rain")
def test_a_matrix_for_people_has_a_column_a_patch(spoken: Command) -> None:
    shown = spoken("similar", "vision/fog", "vision/likeness-rain").out

    assert [len(line.split()) for line in shown.splitlines()] == [2, 4, 4]


@pytest.mark.usefixtures("rain")
def test_neighbours_and_matrices_are_listed(patchbay: Command) -> None:
    listed = patchbay("similar", "vision/likeness-rain").json
    matrix = patchbay("similar", "vision/fog", "vision/likeness-rain@1").json
    opposed = patchbay("similar", "vision/likeness-rain@1", "--sign", "negative").json

    found = {row["reference"]: row["cosine"] for row in listed}
    assert matrix["patches"] == ["vision/fog@1", "vision/likeness-rain@1"]
    assert found["vision/fog@1"] == pytest.approx(matrix["cosines"][0][1], abs=1e-6)
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
    exits.run(app, ["similar", "vision/fog", "vision/likeness-rain", *options])
    matrix = capfd.readouterr().out
    exits.run(app, ["similar", "vision/likeness-rain", *options])
    listed = capfd.readouterr().out

    assert "in place of 0.5" in shown
    assert "condition number" in shown
    assert "conv2.weight" in shown
    assert "+1.000" in matrix
    assert "vision/fog@1" in listed


def test_an_unknown_file_or_pair_is_identified(patchbay: Command, rain: Path) -> None:
    by_file = patchbay("identify", rain).json
    by_pair = patchbay("identify", "vision/net", "vision/net-rain").json

    assert (by_file["label"], by_pair["label"]) == ("likeness-rain", "likeness-rain")
    assert by_file["patches"][0]["cosine"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("words", [["nowhere.safetensors"], ["a/b", "c/d", "e/f"]])
def test_identify_takes_a_file_or_two_models(patchbay: Command, words: list[str]) -> None:
    assert patchbay("identify", *words).code == Exit.USAGE

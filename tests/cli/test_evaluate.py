from pathlib import Path

import pytest

from service.cli.exits import Exit
from tests.cli.conftest import Command, Ended

pytestmark = pytest.mark.usefixtures("published")

CODE = """
from pathlib import Path
from safetensors.numpy import load_file

def measure(weights: Path) -> list[dict[str, object]]:
    files = [weights] if weights.is_file() else sorted(weights.glob("*.safetensors"))
    tensors = {name: value for file in files for name, value in load_file(file).items()}
    return [
        {"accuracy": float(abs(tensors["conv1.weight"]).sum()) % 1, "n": 100},
        {"accuracy": 0.5, "n": 10, "corruption": "clean"},
    ]

def percent(weights: Path) -> dict[str, object]:
    return {"accuracy": 81.0, "n": 10}

def number(weights: Path) -> float:
    return 0.8
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "measuring.py"
    path.write_text(CODE)
    return path


def _evaluate(patchbay: Command, function: str, *more: object, on: str = "vision/net") -> Ended:
    about = ("--on", on, "--data-set", "digits", "--corruption", "fog", "--scales", "0,0.5,1")
    return patchbay("evaluate", "vision/fog", function, *about, *more)


def test_a_curve_is_measured_published_and_found(patchbay: Command, code: Path) -> None:
    rows = _evaluate(patchbay, f"{code}:measure").json

    fog = [row for row in rows if row["corruption"] == "fog"]
    assert [row["scale"] for row in fog] == [0, 0.5, 1]
    assert len({row["accuracy"] for row in fog}) == 3  # other weights at every scale
    listed = patchbay("results", "--patch", "vision/fog@1", "--corruption", "clean").json
    assert {row["accuracy"] for row in listed} == {0.5}
    assert {row["base"] for row in rows} == {"vision/net@1"}


def test_a_model_of_several_files_is_given_as_a_folder(patchbay: Command, code: Path) -> None:
    rows = _evaluate(patchbay, f"{code}:measure", "--no-publish", on="vision/sharded").json

    assert len({row["accuracy"] for row in rows if row["corruption"] == "fog"}) == 3
    assert patchbay("results", "--on", "vision/sharded@1").json == []


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("percent", "accuracy: Input should be less than or equal to 1"),
        ("number", "returned 0.8; it should return"),
    ],
)
def test_an_answer_that_cannot_be_is_refused_naming_what_is_wrong(
    patchbay: Command, code: Path, function: str, said: str
) -> None:
    ended = _evaluate(patchbay, f"{code}:{function}")

    assert ended.code == Exit.INVALID
    assert said in ended.err


@pytest.mark.parametrize("function", ["measuring", "nowhere.py:measure", "no.such.module:measure"])
def test_code_that_is_not_there_is_named(patchbay: Command, function: str) -> None:
    ended = _evaluate(patchbay, function)

    assert ended.code != 0
    assert function.rpartition(":")[0] in ended.err

"""Extractions asked for from the command line: several at once, an order of one's own, dry runs."""

from pathlib import Path

import pytest

from service.cli.exits import Exit
from service.client.client import Client
from service.client.problem import ServiceProblem
from service.schemas.patches import RequestExtractions
from tests.cli.conftest import Command

ENERGIES = ("0.7", "0.85", "0.95")

pytestmark = pytest.mark.usefixtures("published")


def test_several_robust_models_become_patches_in_one_operation(
    patchbay: Command, client: Client, models: Path
) -> None:
    patchbay("push", "vision/net-other", models / "robust")

    told = patchbay(
        *("extract", "vision/net", "vision/net-robust", "vision/net-other", "--all"),
        *("--patch", "vision/one-of-two", "--patch", "vision/two-of-two"),
    ).json

    assert (told["kind"], told["state"]) == ("extract", "succeeded")
    made = {each["patch"]: each for each in told["result"]["extractions"]}
    one, two = (client.patches.version(f"vision/{n}-of-two", 1) for n in ("one", "two"))
    assert made["vision/one-of-two"]["digest"] == one.digest
    assert made["vision/two-of-two"]["links"]["file"].endswith("two-of-two/versions/1/file")
    assert (one.robust, two.robust) == ("vision/net-robust@1", "vision/net-other@1")
    assert one.clean == two.clean == "vision/net@1"


def test_a_dry_run_of_several_says_what_each_choice_would_keep(patchbay: Command) -> None:
    told = patchbay(
        *("extract", "vision/net", "vision/net-robust", "vision/net-robust", "--dry-run"),
        *("--patch", "vision/dry-one", "--patch", "vision/dry-two"),
    ).json

    assert told["result"]["dry_run"]
    for each in told["result"]["extractions"]:
        choices = each["summary"]["choices"]
        assert choices[0]["layers"] == {"energy": 0.7}
        assert choices[-1]["layers"] == "all"
        assert set(choices[-1]["estimated_bytes"]) >= {"exact", "high", "standard"}
        assert each["links"]["profile"].startswith("/v1/blobs/sha256:")


def test_people_are_told_in_the_order_in_which_they_asked(spoken: Command) -> None:
    names = ["vision/told-a-long-name", "vision/told-b", "vision/told-aa"]
    named = [word for name in names for word in ("--patch", name)]

    made = spoken("extract", "vision/net", *["vision/net-robust"] * 3, *named)

    heads = [line.partition("@")[0] for line in made.out.splitlines() if line[0] != " "]
    assert heads == names
    assert made.out.count("keeps ") == 3


def test_a_dry_run_shows_people_sizes_by_quality_and_the_noise_floor(spoken: Command) -> None:
    told = spoken(
        *("extract", "vision/net", "vision/net-robust", "--patch", "vision/dry", "--dry-run"),
        *("--first", "1"),
    ).out

    head, *rows = [line.split() for line in told.splitlines() if "   " in line]
    assert head[-5:] == ["exact", "high", "standard", "small", "tiny"]
    assert [row[:2] for row in rows] == [
        ["first", "1"],
        *[["energy", e] for e in ENERGIES],
        ["all", "2"],
    ]
    assert "times the rounding of the models' dtypes" in told
    assert "{" not in told


def test_a_patch_is_labelled_as_it_is_extracted_and_told_from_a_model_of_its_name(
    patchbay: Command, models: Path
) -> None:
    patchbay("push", "vision/twin", models / "clean.safetensors")
    about = ("--label", "fog", "--license", "MIT")

    patchbay("extract", "vision/net", "vision/net-robust", "--patch", "vision/twin", *about)

    shown, version = (patchbay("show", f"vision/twin{n}", "--patch").json for n in ("", "@1"))
    assert (shown["labels"], shown["license"]) == (["fog"], "MIT")
    assert version["clean"] == "vision/net@1"
    assert "files" in patchbay("show", "vision/twin@1").json
    fitting = patchbay("fits", "vision/twin", "--patch").json
    assert "vision/net@1" in [row["reference"] for row in fitting]


def test_an_order_of_tensors_decides_which_kernels_come_first(
    patchbay: Command, client: Client, tmp_path: Path
) -> None:
    order = tmp_path / "order"
    order.write_text("conv2.weight\nconv1.weight\n")

    made = patchbay(
        *("extract", "vision/net", "vision/net-robust", "--patch", "vision/ordered"),
        *("--first", "1", "--forward-order", order),
    ).json

    profile = client.patches.profile("vision/ordered", made["number"])
    assert profile["order"] == "given"
    assert [kernel["name"] for kernel in profile["kernels"] if kernel["kept"]] == ["conv2.weight"]


def test_an_order_that_names_a_stranger_fails_and_says_which(
    patchbay: Command, tmp_path: Path
) -> None:
    order = tmp_path / "order"
    order.write_text("conv9.weight")

    ended = patchbay(
        *("extract", "vision/net", "vision/net-robust", "--patch", "vision/strange"),
        *("--forward-order", order),
    )

    assert ended.code == Exit.FAILED
    assert "conv9.weight" in ended.err


@pytest.mark.parametrize("patches", [["a/p"], ["a/p", "a/p"], ["a/p", "a/q", "a/r"]])
def test_each_robust_model_needs_a_patch_of_its_own(patchbay: Command, patches: list[str]) -> None:
    named = [word for patch in patches for word in ("--patch", patch)]

    assert patchbay("extract", "a/net", "a/one", "a/two", *named).code == Exit.USAGE


def test_a_patch_named_twice_in_other_letters_is_refused(client: Client) -> None:
    robust = {"vision/fog": "vision/net-robust", "vision/FOG": "vision/net-robust"}

    with pytest.raises(ServiceProblem, match="twice"):
        client.patches.extract_many(RequestExtractions(clean="vision/net", robust=robust))

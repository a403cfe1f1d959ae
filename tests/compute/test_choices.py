"""What a dry run says of every choice, against extractions that make it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from service.compute import extract
from service.compute.measure import ExtractOptions
from service.compute.pairing import Trio
from service.tensors.selection import Quality, parse_layers
from tests.pairs import CPU, Bench, Three, one

CHOICES: list[Any] = [{"energy": 0.7}, {"energy": 0.85}, {"energy": 0.95}]
CHOICES += [{"first": 1}, {"first": 2}, "all"]


def _planned(trio: Trio, folder: Path) -> list[dict[str, Any]]:
    result = extract.dry_run(
        trio, ExtractOptions(), folder / "profile", device=CPU, progress=lambda _: None
    )
    choices: list[dict[str, Any]] = result.summary["choices"]
    return choices


def test_a_dry_run_lists_energies_the_first_kernels_and_all(three: Three, tmp_path: Path) -> None:
    assert [choice["layers"] for choice in _planned(three.trio, tmp_path)] == CHOICES


@pytest.mark.parametrize("number", range(len(CHOICES)))
def test_a_choice_keeps_what_it_said(
    three: Three, bench: Bench, tmp_path: Path, number: int
) -> None:
    planned = _planned(three.trio, tmp_path)[number]

    for quality in (Quality.STANDARD, Quality.EXACT):
        layers = parse_layers(planned["layers"])
        made = bench.extract(three.trio, layers=layers, quality=quality)

        assert planned["kernels"] == made.result.summary["kernels_kept"]
        assert planned["parameters"] == made.result.summary["parameters_kept"]
        assert planned["energy"] == pytest.approx(made.result.summary["energy_kept"], rel=1e-5)
        assert planned["estimated_bytes"][quality] == pytest.approx(
            len(made.content), rel=0.08, abs=200
        )


def test_a_summary_stops_at_some_first_kernels_and_the_profile_does_not(
    bench: Bench, tmp_path: Path
) -> None:
    random = torch.Generator().manual_seed(1)
    clean = {f"layer{n}.weight": torch.randn(8, 8, generator=random) for n in range(50)}
    robust = {n: t + 0.1 * torch.randn(8, 8, generator=random) for n, t in clean.items()}
    trio = Trio(one(clean), one(robust), None)

    shown = _planned(trio, tmp_path)

    counts = [choice["layers"]["first"] for choice in shown if "first" in choice["layers"]]
    assert counts == list(range(1, 33))
    assert (tmp_path / "profile").read_text().count('"first":') == 49
    assert bench.extract(trio).profile["choices"] == []


def test_every_layer_has_the_noise_floor_of_its_dtypes(bench: Bench) -> None:
    random = torch.Generator().manual_seed(1)
    clean = {"body.weight": torch.randn(64, 64, generator=random)}
    robust = {"body.weight": clean["body.weight"] + 0.01 * torch.randn(64, 64, generator=random)}
    halved = {"body.weight": robust["body.weight"].bfloat16()}

    mixed = bench.extract(Trio(one(clean), one(halved), None)).profile["kernels"][0]
    rounding = (halved["body.weight"].double() - robust["body.weight"].double()).norm()

    relative = float(rounding / clean["body.weight"].double().norm())
    assert mixed["noise_floor"] == pytest.approx(relative, rel=0.05)


def test_packing_is_warned_of_by_what_it_may_cost(bench: Bench) -> None:
    random = torch.Generator().manual_seed(2)
    clean = {"body.weight": torch.randn(128, 128, generator=random)}
    change = torch.randn(128, 128, generator=random)
    small, large = ({"body.weight": clean["body.weight"] + x * change} for x in (0.4, 0.8))

    quiet = bench.extract(Trio(one(clean), one(small), None), quality=Quality.STANDARD)
    loud = bench.extract(Trio(one(clean), one(large), None), quality=Quality.STANDARD)

    assert quiet.result.summary["noise_to_weight"] > 0.08
    assert not any("packing" in warning for warning in quiet.profile["warnings"])
    assert loud.profile["predicted_loss"] > 1
    assert any("points of accuracy" in warning for warning in loud.profile["warnings"])

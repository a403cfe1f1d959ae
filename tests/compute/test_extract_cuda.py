"""Extraction on a GPU: the same choice, and figures within a billionth of the CPU's."""

from pathlib import Path

import pytest
import torch

from service.compute import extract
from service.compute.measure import ExtractOptions
from service.compute.pairing import Trio
from service.tensors.selection import Quality
from tests.pairs import CPU, one


@pytest.mark.gpu
@pytest.mark.parametrize("quality", [Quality.STANDARD, Quality.EXACT])
def test_a_gpu_measures_and_packs_as_the_cpu_does(tmp_path: Path, quality: Quality) -> None:
    random = torch.Generator().manual_seed(1)
    shapes = {"a.weight": (1500, 1500), "b.weight": (64, 3, 3, 3), "a.bias": (1500,)}
    origin = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    moved = [
        {
            name: tensor + 0.1 * torch.randn(tensor.shape, generator=random)
            for name, tensor in origin.items()
        }
        for _ in range(2)
    ]
    trio = Trio(one(moved[0]), one(moved[1]), one(origin))

    here, there = (
        extract.extract(
            trio,
            ExtractOptions(quality=quality),
            tmp_path / device.type,
            tmp_path / f"{device.type}.json",
            device=device,
            progress=lambda _: None,
        )
        for device in (CPU, torch.device("cuda"))
    )

    assert there.summary["kernels_kept"] == here.summary["kernels_kept"]
    assert there.size_bytes == pytest.approx(here.size_bytes, rel=1e-3)
    for figure in ("energy_kept", "gain", "cosine"):
        assert there.summary[figure] == pytest.approx(here.summary[figure], rel=1e-5)

"""Several robust models against one clean model, whose tensors are read once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from service import errors
from service.compute import extract
from service.compute.extract import ExtractResult, Outputs
from service.compute.measure import ExtractOptions
from service.compute.pairing import Family
from service.compute.sources import ModelFiles, WeightFile
from service.tensors.selection import All, Projection, Quality
from tests.pairs import CPU, Tensors, Three, model, one, weights


def _extract(family: Family, folder: Path, *, dry: bool = False) -> list[ExtractResult]:
    outs = [
        Outputs(None if dry else folder / f"patch-{n}", folder / f"profile-{n}")
        for n in range(len(family.robust))
    ]
    options = ExtractOptions(layers=All(), quality=Quality.STANDARD)
    return extract.extract_all(family, options, outs, device=CPU, progress=lambda _: None)


def _robust(three: Three, count: int) -> list[Tensors]:
    return [weights(10 + number, start=three.origin) for number in range(count)]


def _watched(files: ModelFiles, note: Callable[[int, int], None]) -> ModelFiles:
    def watch(file: WeightFile) -> WeightFile:
        def read(start: int, end: int) -> bytes:
            note(start, end)
            return file.read(start, end)

        return WeightFile(file.header, read)

    watched = {path: watch(file) for path, file in files.files.items()}
    return ModelFiles(watched, files.digest, files.reference)


def test_together_gives_the_files_that_each_alone_gives(three: Three, tmp_path: Path) -> None:
    robust = tuple(one(tensors) for tensors in _robust(three, 3))
    clean, origin = one(three.clean), one(three.origin)
    (tmp_path / "alone").mkdir()

    together = _extract(Family(clean, robust, origin), tmp_path)
    alone = [_extract(Family(clean, (each,), origin), tmp_path / "alone")[0] for each in robust]

    assert together == alone
    assert len({result.digest for result in together}) == 3
    assert [(tmp_path / f"patch-{n}").stat().st_size for n in range(3)] == [
        result.size_bytes for result in together
    ]


def test_measuring_reads_the_clean_model_and_the_origin_once_for_all(
    three: Three, tmp_path: Path
) -> None:
    spans: dict[str, list[tuple[int, int]]] = {"clean": [], "origin": []}
    clean = _watched(one(three.clean), lambda *span: spans["clean"].append(span))
    origin = _watched(one(three.origin), lambda *span: spans["origin"].append(span))
    robust = tuple(one(tensors) for tensors in _robust(three, 4))

    _extract(Family(clean, robust, origin), tmp_path, dry=True)

    for read in spans.values():
        assert len(set(read)) == len(read)
        kernels = sum(
            t.numel() for name, t in three.clean.items() if t.ndim > 1 and "fc" not in name
        )
        assert sum(end - start for start, end in read) == 4 * kernels


def test_each_robust_model_may_have_another_head(three: Three, tmp_path: Path) -> None:
    first, second = _robust(three, 2)
    second["fc.weight"] = torch.zeros(3, 160)

    results = _extract(Family(one(three.clean), (one(first), one(second)), None), tmp_path)

    assert all(result.size_bytes for result in results)


def test_a_robust_model_cut_into_other_files_may_stand_beside_one_that_is_not(
    three: Three, tmp_path: Path
) -> None:
    whole = _robust(three, 1)[0]
    shards = {
        f"model-{part}.safetensors": {name: whole[name] for name in sorted(whole)[part::3]}
        for part in range(3)
    }

    results = _extract(Family(one(three.clean), (one(whole), model(shards)), None), tmp_path)

    assert results[0].summary["noise_to_weight"] == results[1].summary["noise_to_weight"]


def test_one_that_does_not_fit_ends_all_of_them(three: Three, tmp_path: Path) -> None:
    good, bad = _robust(three, 2)
    bad["mix.weight"][0, 0] = torch.nan

    with pytest.raises(errors.NonFiniteWeights):
        _extract(Family(one(three.clean), (one(good), one(bad)), None), tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_change_along_the_clean_weight_is_measured_by_a_walk_of_its_own(tmp_path: Path) -> None:
    clean = {"body.weight": torch.randn(1100, 1000, generator=torch.Generator().manual_seed(1))}
    robust = {"body.weight": clean["body.weight"] * 2}
    robust["body.weight"][0, 0] += 1e-3
    expected = robust["body.weight"].double() - clean["body.weight"].double()
    along = (expected * clean["body.weight"]).sum() / (clean["body.weight"].double() ** 2).sum()
    rest = (expected - along * clean["body.weight"].double()).norm()

    outs = [Outputs(tmp_path / "patch", tmp_path / "profile")]
    options = ExtractOptions(layers=All(), quality=Quality.EXACT, projection=Projection.AUTO)
    family = Family(one(clean), (one(robust),), None)
    [result] = extract.extract_all(family, options, outs, device=CPU, progress=lambda _: None)

    relative = result.summary["energy_kept"]
    assert relative == 1.0
    assert float(rest) == pytest.approx(1e-3, rel=1e-3)

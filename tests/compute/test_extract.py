"""Extractions against the paper's formula and against what must be refused."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load

from service import errors
from service.compute import extract
from service.compute.measure import ExtractOptions
from service.compute.pairing import Trio
from service.compute.sources import decode
from service.names import digest_of
from service.tensors.selection import All, ByEnergy, Named, Projection, Quality
from tests.pairs import CPU, Bench, Extracted, Tensors, Three, model, one

KERNELS = ["features.0.weight", "features.3.weight", "mix.weight"]
NORM = ["weight", "bias", "running_mean", "running_var"]


def _decoded(extracted: Extracted) -> Tensors:
    source = extracted.source
    return {tensor.name: decode(source, tensor, CPU) for tensor in source.patch.tensors}


@pytest.mark.parametrize("form", ["origin", "pair", "none"])
def test_an_exact_signature_is_the_papers(three: Three, bench: Bench, form: str) -> None:
    trio = three.trio if form == "origin" else three.pair
    projection = Projection.NONE if form == "none" else Projection.AUTO

    made = bench.extract(trio, layers=All(), quality=Quality.EXACT, projection=projection)

    signature = _decoded(made)
    for name in KERNELS:
        origin = three.origin[name].double().numpy() if form == "origin" else 0.0
        d_rob = three.robust[name].double().numpy() - origin
        d_std = three.clean[name].double().numpy() - origin
        part = 1.0 if form == "none" else (d_rob * d_std).sum() / (d_std * d_std).sum()
        expected = d_rob - part * d_std
        assert np.abs(signature[name].double().numpy() - expected).max() < 1e-7
    assert made.result.summary["projection"] == form


def test_a_plain_exact_patch_leads_from_the_clean_model_to_the_robust_one(
    three: Three, bench: Bench
) -> None:
    made = bench.extract(
        three.pair, layers=All(), quality=Quality.EXACT, projection=Projection.NONE
    )

    patched = bench.build(three.pair.clean, (made.source, "1"))

    whole = {n for n in three.clean if not n.startswith("fc.") and "num_batches" not in n}
    assert set(patched) == whole
    for name, tensor in patched.items():
        assert torch.allclose(tensor, three.robust[name], atol=1e-6, rtol=1e-5)


def test_norms_and_biases_ride_with_their_kernels_and_counters_never(
    three: Three, bench: Bench
) -> None:
    made = bench.extract(three.trio, layers=Named(("features.0.*",)))

    kinds = {tensor.name: str(tensor.kind) for tensor in made.source.patch.tensors}
    assert kinds == {
        "features.0.weight": "additive",
        "features.0.bias": "additive",
        "features.1.weight": "additive",
        "features.1.bias": "additive",
        "features.1.running_mean": "additive",
        "features.1.running_var": "log-ratio",
    }
    variance = _decoded(made)["features.1.running_var"]
    expected = (
        three.robust["features.1.running_var"] / three.clean["features.1.running_var"]
    ).log()
    assert torch.allclose(variance, expected, rtol=2**-10, atol=1e-6)


@pytest.mark.parametrize("quality", list(Quality))
def test_every_quality_keeps_the_gain(three: Three, bench: Bench, quality: Quality) -> None:
    made = bench.extract(three.trio, layers=All(), quality=quality)

    for kernel in made.profile["kernels"]:
        assert kernel["gain"] == pytest.approx(1.0, abs=1e-3)
        assert kernel["cosine"] > {"small": 0.8, "tiny": 0.65}.get(quality, 0.93)
    assert made.profile["totals"]["gain"] == pytest.approx(1.0, abs=1e-3)


def test_smaller_qualities_make_smaller_files_as_estimated(
    three: Three, bench: Bench, tmp_path: Path
) -> None:
    sizes = {}
    for quality in Quality:
        made = bench.extract(three.trio, layers=All(), quality=quality)
        sizes[str(quality)] = len(made.content)
    dry = extract.dry_run(
        three.trio,
        ExtractOptions(layers=All()),
        tmp_path / "dry",
        device=CPU,
        progress=lambda _: None,
    )

    assert list(sizes.values()) == sorted(sizes.values(), reverse=True)
    for quality, size in dry.summary["estimated_bytes"].items():
        assert size == pytest.approx(sizes[quality], rel=0.1)


def test_a_dry_run_writes_a_profile_and_no_patch(three: Three, tmp_path: Path) -> None:
    result = extract.dry_run(
        three.trio, ExtractOptions(), tmp_path / "profile", device=CPU, progress=lambda _: None
    )

    assert (result.digest, result.size_bytes) == (None, None)
    assert [path.name for path in tmp_path.iterdir()] == ["profile"]
    content = (tmp_path / "profile").read_bytes()
    assert (result.profile_digest, result.profile_size) == (digest_of(content), len(content))
    kernels = json.loads(content)["kernels"]
    assert [kernel["name"] for kernel in kernels] == KERNELS
    assert sum(kernel["energy_share"] for kernel in kernels) == pytest.approx(1.0)


def test_the_default_keeps_the_densest_kernels(three: Three, bench: Bench) -> None:
    made = bench.extract(three.trio)

    kernels = made.profile["kernels"]
    kept = [kernel for kernel in kernels if kernel["kept"]]
    covered = sum(kernel["energy_share"] for kernel in kept)
    assert covered >= 0.85
    assert covered - min(kept, key=lambda k: float(k["energy_density"]))["energy_share"] < 0.85
    assert made.result.summary["energy_kept"] == pytest.approx(covered, rel=1e-5)
    least = min(kernel["energy_density"] for kernel in kept)
    assert all(kernel["energy_density"] <= least for kernel in kernels if not kernel["kept"])


@pytest.mark.parametrize("quality", list(Quality))
def test_the_same_inputs_give_the_same_file_for_any_number_of_threads(
    three: Three, bench: Bench, quality: Quality
) -> None:
    one_thread = bench.extract(three.trio, quality=quality)
    torch.set_num_threads(3)
    three_threads = bench.extract(three.trio, quality=quality)

    assert one_thread.content == three_threads.content
    assert one_thread.result == three_threads.result
    assert one_thread.result.digest == digest_of(one_thread.content)


def test_the_index_names_the_inputs(three: Three, bench: Bench) -> None:
    trio = three.trio

    patch = bench.extract(trio).source.patch

    assert patch.input_digest("clean") == trio.clean.digest
    assert patch.inputs["robust"]["reference"] == "vision/model@1"
    assert patch.parameters == {
        "projection": "origin",
        "quality": "standard",
        "layers": {"energy": 0.85},
    }


def test_models_cut_into_other_files_are_matched_by_name(three: Three, bench: Bench) -> None:
    names = sorted(three.robust)
    shards = {
        f"model-0000{part}-of-00002.safetensors": {n: three.robust[n] for n in names[part - 1 :: 2]}
        for part in (1, 2)
    }

    sharded = bench.extract(Trio(one(three.clean), model(shards), None))
    whole = bench.extract(three.pair)

    assert [t.digest for t in sharded.source.patch.tensors] == [
        t.digest for t in whole.source.patch.tensors
    ]


def test_other_heads_are_skipped_and_listed(three: Three, bench: Bench) -> None:
    three.robust["fc.weight"] = torch.zeros(7, 160)
    del three.robust["fc.bias"]

    made = bench.extract(three.trio)

    reasons = {skip["name"]: skip["reason"] for skip in made.profile["skipped"]}
    assert reasons["fc.weight"] == (
        "head; 'fc.weight' is [10, 160] in the clean model, [7, 160] in the robust one"
    )
    assert reasons["fc.bias"] == "head; the robust model lacks 'fc.bias'"


def test_models_that_differ_are_refused_naming_tensor_and_side(three: Three, bench: Bench) -> None:
    three.robust["mix.weight"] = torch.zeros(4, 4)
    three.robust["extra.weight"] = torch.zeros(4, 4)
    del three.origin["features.3.weight"]

    with pytest.raises(errors.ModelsDiffer) as caught:
        bench.extract(three.trio)

    assert caught.value.differences == [
        "the clean model lacks 'extra.weight', which the robust one has",
        "the origin model lacks 'features.3.weight'",
        "'mix.weight' is [160, 128] in the clean model, [4, 4] in the robust one",
    ]


def test_ten_differences_are_named_and_the_rest_counted(bench: Bench) -> None:
    clean = {f"layer{n:02}.weight": torch.zeros(2, 2) for n in range(13)}

    with pytest.raises(errors.ModelsDiffer) as caught:
        bench.extract(Trio(one(clean), one({"other.weight": torch.zeros(2, 2)}), None))

    assert (len(caught.value.differences), caught.value.more) == (10, 4)


@pytest.mark.parametrize("side", ["clean", "robust", "origin"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(
    three: Three, bench: Bench, side: str, value: float
) -> None:
    getattr(three, side)["mix.weight"][3, 4] = value

    with pytest.raises(errors.NonFiniteWeights) as caught:
        bench.extract(three.trio)

    assert caught.value.model == side
    assert caught.value.tensors == ["model.safetensors:mix.weight"]
    assert not (bench.folder / "patch").exists()


def test_a_bias_that_is_not_finite_is_refused_where_it_takes_part(
    three: Three, bench: Bench
) -> None:
    three.robust["mix.bias"][0] = math.nan

    bench.extract(three.trio, layers=Named(("features.*",)))
    with pytest.raises(errors.NonFiniteWeights, match=r"mix\.bias"):
        bench.extract(three.trio, layers=Named(("mix.*",)))


def test_equal_models_have_nothing_to_extract(three: Three, bench: Bench) -> None:
    with pytest.raises(errors.NothingToExtract):
        bench.extract(Trio(one(three.clean), one(three.clean), None))


def test_a_change_that_projection_takes_away_is_said_to_be_that(bench: Bench) -> None:
    clean = {"conv.weight": torch.randn(4, 4, generator=torch.Generator().manual_seed(1))}
    trio = Trio(one(clean), one({"conv.weight": 2 * clean["conv.weight"]}), None)

    bench.extract(trio, layers=All(), projection=Projection.NONE)
    with pytest.raises(errors.NothingToExtract, match="what projection takes away"):
        bench.extract(trio, layers=All())


def test_a_kernel_that_does_not_differ_is_not_stored(three: Three, bench: Bench) -> None:
    three.robust["mix.weight"] = three.clean["mix.weight"]

    made = bench.extract(three.pair, layers=All(), projection=Projection.NONE)

    assert "mix.weight" not in {tensor.name for tensor in made.source.patch.tensors}


def test_a_dead_variance_stays_as_it_is_and_the_profile_says_so(three: Three, bench: Bench) -> None:
    three.clean["features.1.running_var"][2] = 0.0

    made = bench.extract(three.trio, layers=All())

    assert _decoded(made)["features.1.running_var"][2] == 0
    riders = {rider["name"]: rider["zeroed"] for rider in made.profile["riders"]}
    assert riders["features.1.running_var"] == 1
    assert any("running_var" in warning for warning in made.profile["warnings"])


def test_a_kernel_whose_clean_weight_is_zero_is_listed_and_not_selected(
    three: Three, bench: Bench
) -> None:
    three.clean["mix.weight"].zero_()

    made = bench.extract(three.pair, layers=ByEnergy(1.0))

    assert "mix.weight" not in {tensor.name for tensor in made.source.patch.tensors}
    assert {
        "path": "model.safetensors",
        "name": "mix.weight",
        "reason": "its clean weight is zero",
    } in (made.profile["skipped"])


def test_a_batch_norm_without_a_kernel_is_warned_of(bench: Bench) -> None:
    random = torch.Generator().manual_seed(1)
    clean = {"body.weight": torch.randn(8, 8, generator=random)}
    clean |= {f"odd.{part}": torch.rand(5, generator=random) for part in NORM}
    robust = {name: tensor * 1.5 + 0.1 for name, tensor in clean.items()}

    made = bench.extract(Trio(one(clean), one(robust), None))

    assert made.profile["unattached"] == ["model.safetensors:odd"]
    assert any("batch norm" in warning for warning in made.result.summary["warnings"])


def test_a_large_patch_is_warned_of(three: Three, bench: Bench) -> None:
    exact = bench.extract(three.trio, layers=All(), quality=Quality.EXACT)
    standard = bench.extract(three.trio, layers=Named(("mix.*",)))

    assert any("of its base" in warning for warning in exact.profile["warnings"])
    assert not any("of its base" in warning for warning in standard.profile["warnings"])
    assert any("% of the change" in warning for warning in standard.profile["warnings"])


def test_a_change_below_the_rounding_of_its_dtype_is_warned_of(bench: Bench) -> None:
    random = torch.Generator().manual_seed(1)
    clean = {"body.weight": torch.randn(64, 64, generator=random)}
    robust = {"body.weight": clean["body.weight"] + 0.002 * torch.randn(64, 64, generator=random)}
    narrow = [{n: t.bfloat16() for n, t in tensors.items()} for tensors in (clean, robust)]

    rounded = bench.extract(Trio(one(narrow[0]), one(narrow[1]), None))
    wide = bench.extract(Trio(one(clean), one(robust), None))

    assert any("rounding" in warning for warning in rounded.profile["warnings"])
    assert not any("rounding" in warning for warning in wide.profile["warnings"])


def test_a_change_beyond_f32_is_refused(bench: Bench) -> None:
    clean = {"body.weight": torch.ones(4, 4, dtype=torch.float64)}

    for size in (1e60, 1e200):
        robust = {"body.weight": clean["body.weight"] * torch.arange(4) * size}
        with pytest.raises(errors.SignatureTooLarge, match=r"body\.weight"):
            bench.extract(Trio(one(clean), one(robust), None))


def test_empty_tensors_and_single_numbers_take_no_part(bench: Bench) -> None:
    clean = {
        "body.weight": torch.eye(4),
        "none.weight": torch.empty(0, 4),
        "scale": torch.tensor(1.0),
        "whole": torch.arange(3),
    }
    robust = {**clean, "body.weight": torch.eye(4).roll(1), "scale": torch.tensor(2.0)}

    made = bench.extract(Trio(one(clean), one(robust), None), layers=All())

    assert [tensor.name for tensor in made.source.patch.tensors] == ["body.weight"]


def test_progress_rises_to_one(three: Three, tmp_path: Path) -> None:
    told: list[float] = []

    extract.extract(
        three.trio,
        ExtractOptions(),
        tmp_path / "patch",
        tmp_path / "profile",
        device=CPU,
        progress=told.append,
    )

    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) > len(KERNELS)


def test_an_extraction_that_is_stopped_leaves_no_file(three: Three, tmp_path: Path) -> None:
    def stop(done: float) -> None:
        if done > 0.8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract.extract(
            three.trio,
            ExtractOptions(),
            tmp_path / "patch",
            tmp_path / "profile",
            device=CPU,
            progress=stop,
        )

    assert list(tmp_path.iterdir()) == []


def test_the_library_reads_the_patch_file(three: Three, bench: Bench) -> None:
    assert set(load(bench.extract(three.trio).content)) == {"halves", "codes", "index"}

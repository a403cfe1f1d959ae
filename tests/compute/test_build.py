"""Overlays against a plain reference of the contract, on whole models."""

import hashlib
from decimal import Decimal

import pytest
import torch
from torch import Tensor

from service import errors
from service.compute.sources import PatchSource, decode
from service.layout import patchfile
from service.tensors.selection import All, Named, Projection, Quality
from tests.pairs import CPU, Bench, Tensors, Three, model, one, reader, weights

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def _reference(base: Tensors, *patches: tuple[PatchSource, str]) -> Tensors:
    """The contract in ten lines."""
    out: Tensors = {}
    shift: dict[str, Tensor] = {}
    for source, scale in patches:
        for tensor in source.patch.tensors:
            delta, own = decode(source, tensor, CPU), base[tensor.name]
            wide = torch.float64 if own.dtype == torch.float64 else torch.float32
            if tensor.kind == "additive":
                before = out.get(tensor.name, own.to(wide))
                out[tensor.name] = before + torch.tensor(float(scale), dtype=wide) * delta.to(wide)
            else:
                shift[tensor.name] = shift.get(tensor.name, 0.0) + float(scale) * delta.double()
    for name, x in shift.items():
        growth = torch.tensor([float(Decimal(v).exp()) for v in x.tolist()], dtype=torch.float64)
        moved = base[name].double() * growth
        out[name] = moved if base[name].dtype == torch.float64 else moved.float()
    return {name: tensor.to(base[name].dtype) for name, tensor in out.items()}


def _as(tensors: Tensors, dtype: torch.dtype) -> Tensors:
    return {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("quality", list(Quality))
def test_an_overlay_is_what_the_reference_makes(
    three: Three, bench: Bench, dtype: torch.dtype, quality: Quality
) -> None:
    one_patch = bench.extract(three.trio, quality=quality).source
    other = bench.extract(three.pair, layers=Named(("mix.*",)), quality=quality).source
    base = _as(three.clean, dtype)

    for patches in ([(one_patch, "1")], [(one_patch, "0.7"), (other, "-1.35")]):
        overlay = bench.build(one(base), *patches)
        expected = _reference(base, *patches)

        assert set(overlay) == set(expected)
        for name, tensor in overlay.items():
            assert tensor.dtype == base[name].dtype
            assert torch.equal(tensor, expected[name])


def test_a_patch_fits_another_model_of_the_same_architecture(three: Three, bench: Bench) -> None:
    patch = bench.extract(three.trio).source
    stranger = weights(9)

    overlay = bench.build(
        one(stranger, "pytorch_model.safetensors"), (patch, "1"), path="pytorch_model.safetensors"
    )

    expected = _reference(stranger, (patch, "1"))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in overlay.items())


def test_a_sharded_base_has_an_overlay_for_each_file(three: Three, bench: Bench) -> None:
    patch = bench.extract(three.trio, layers=All()).source
    names = sorted(three.clean)
    shards = {path: {n: three.clean[n] for n in names[part::2]} for part, path in enumerate("ab")}

    overlays = {path: bench.build(model(shards), (patch, "1"), path=path) for path in shards}

    expected = _reference(three.clean, (patch, "1"))
    assert set(overlays["a"]) | set(overlays["b"]) == set(expected)
    assert all(
        torch.equal(tensor, expected[name])
        for overlay in overlays.values()
        for name, tensor in overlay.items()
    )


def test_the_same_build_gives_the_same_bytes_for_any_number_of_threads(
    three: Three, bench: Bench
) -> None:
    patch = bench.extract(three.trio, layers=All()).source

    first = bench.build_file(three.trio.clean, (patch, "0.3"))
    torch.set_num_threads(3)
    second = bench.build_file(three.trio.clean, (patch, "0.3"))

    assert first == second


def test_values_that_are_not_finite_stay_bit_for_bit(three: Three, bench: Bench) -> None:
    patch = bench.extract(three.trio, layers=All()).source
    odd = torch.tensor([0x7FC12345, -0x3EDCC, 0x7F800000, -0x800000], dtype=torch.int32)
    three.clean["mix.weight"].view(torch.int32)[0, :4] = odd

    overlay = bench.build(one(three.clean), (patch, "1"))

    assert torch.equal(overlay["mix.weight"].view(torch.int32)[0, :4], odd)
    assert overlay["mix.weight"][0, 4:].isfinite().all()


def test_a_scale_of_zero_touches_nothing(three: Three, bench: Bench) -> None:
    patch = bench.extract(three.trio).source

    assert bench.build(three.trio.clean, (patch, "0")) == {}


def test_a_code_that_was_changed_is_refused_naming_the_tensor(three: Three, bench: Bench) -> None:
    made = bench.extract(three.trio, layers=Named(("mix.*",)))
    place = made.source.patch.tensors[0].codes.start + 100
    content = bytearray(made.content)
    content[place] ^= 1
    read = reader(bytes(content))
    damaged = PatchSource(patchfile.read(read, len(content)), read)

    with pytest.raises(errors.NotAPatchFile, match=r"mix\.weight"):
        bench.build(three.trio.clean, (damaged, "1"))


def test_a_scale_that_overflows_is_refused_naming_the_tensor(three: Three, bench: Bench) -> None:
    patch = bench.extract(three.trio, layers=Named(("mix.*",)), quality=Quality.EXACT).source
    base = _as(three.clean, torch.float16)
    base["mix.weight"] = torch.full_like(base["mix.weight"], torch.finfo(torch.float16).max)
    huge = {n: t * 1e4 if n == "mix.weight" else t for n, t in three.robust.items()}
    large = bench.extract(Three(three.clean, huge, three.origin).trio, layers=Named(("mix.*",)))

    assert bench.build(one(base), (patch, "1"))
    with pytest.raises(errors.ScaleOverflows) as caught:
        bench.build(one(base), (large.source, "10"))

    assert (caught.value.tensor, caught.value.dtype) == ("mix.weight", "F16")


def test_a_patch_that_does_not_fit_is_refused(three: Three, bench: Bench) -> None:
    patch = bench.extract(three.trio, layers=Named(("mix.*",))).source
    three.clean["mix.weight"] = torch.zeros(3, 3)

    with pytest.raises(errors.DoesNotFit, match="3x3 in the base, 160x128 in the patch"):
        bench.build(one(three.clean), (patch, "1"))


PINNED = "13455834af0d86c7"


def _pin(bench: Bench, device: str) -> str:
    """The overlays of one recipe on bases of all dtypes; the weights are whole numbers."""
    steps = (torch.arange(4096) * 37 % 255 - 127).reshape(64, 64) / 2048
    clean = {"body.weight": torch.eye(64), "body.bias": torch.arange(64) / 64}
    robust = {"body.weight": torch.eye(64) + steps, "body.bias": torch.arange(64) / 32}
    patch = bench.extract(
        Three(clean, robust, clean).pair, quality=Quality.EXACT, projection=Projection.NONE
    ).source
    where = torch.device(device)
    overlays = [
        bench.build_file(one(_as(clean, dtype)), (patch, "0.7"), device=where) for dtype in DTYPES
    ]
    return hashlib.sha256(b"".join(overlays)).hexdigest()[:16]


def test_the_bytes_of_a_build_are_pinned(bench: Bench) -> None:
    assert _pin(bench, "cpu") == PINNED


@pytest.mark.gpu
def test_cuda_builds_the_bytes_of_the_cpu(bench: Bench) -> None:
    assert _pin(bench, "cuda") == PINNED

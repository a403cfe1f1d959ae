"""The contract against numpy, which rounds by itself, and against pinned bytes."""

import hashlib
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from service import errors
from service.layout.codecs import Kind
from service.tensors import arithmetic, raw

_DTYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "u2"}
SCALES = st.integers(-100_000, 100_000).map(lambda units: Decimal(units) / 10_000)
SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)


@given(
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from(sorted(_DTYPES)),
    shape=SHAPES,
    scales=st.lists(SCALES, max_size=3),
    magnitude=st.sampled_from([1e-40, 1e-7, 1.0, 1e30]),
)
@settings(deadline=None, max_examples=150)
def test_any_bits_move_as_numpy_moves_them(
    seed: int, dtype: str, shape: tuple[int, ...], scales: list[Decimal], magnitude: float
) -> None:
    random = np.random.default_rng(seed)
    bits = random.bytes(int(np.prod(shape, dtype=int)) * np.dtype(_DTYPES[dtype]).itemsize)
    deltas = [(random.standard_normal(shape) * magnitude).astype("f4") for _ in scales]
    expected = _by_numpy(bits, dtype, list(zip(scales, deltas, strict=True)))

    pairs = [(scale, torch.tensor(d)) for scale, d in zip(scales, deltas, strict=True)]
    try:
        moved = arithmetic.patched(_tensor(bits, dtype, shape), Kind.ADDITIVE, pairs, tensor="w")
    except errors.ScaleOverflows:
        assert expected is None
        return

    assert bytes(raw.octets(moved)) == expected


def _tensor(bits: bytes, dtype: str, shape: tuple[int, ...]) -> Tensor:
    octets = torch.from_numpy(np.frombuffer(bits, np.uint8).copy())
    return raw.view(octets, dtype, shape)


def _by_numpy(
    bits: bytes, dtype: str, pairs: list[tuple[Decimal, npt.NDArray[np.float32]]]
) -> bytes | None:
    """The contract in numpy; None where a finite value leaves its dtype."""
    base = np.frombuffer(bits, _DTYPES[dtype])
    with np.errstate(all="ignore"):
        if dtype == "BF16":
            values = (base.astype("u4") << 16).view("f4")
        else:
            values = base.astype("f8" if dtype == "F64" else "f4")
        total = values
        for scale, delta in pairs:
            total = total + values.dtype.type(scale) * delta.reshape(-1).astype(values.dtype)
        moved = _bf16(total) if dtype == "BF16" else total.astype(_DTYPES[dtype])
        wide = (moved.astype("u4") << 16).view("f4") if dtype == "BF16" else moved
    finite = np.isfinite(values)
    if (finite & ~np.isfinite(wide)).any():
        return None
    rows = zip(finite, moved, base, strict=True)
    return b"".join((new if sound else old).tobytes() for sound, new, old in rows)


def _bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Round to nearest even on the bits; only finite values count."""
    bits = values.astype("f4").view("u4").astype("u8")
    rounded: npt.NDArray[np.uint16] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("u2")
    return rounded


@pytest.mark.parametrize("dtype", sorted(_DTYPES))
@pytest.mark.parametrize("kind", list(Kind))
def test_a_base_without_patches_keeps_its_bits(dtype: str, kind: Kind) -> None:
    bits = np.random.default_rng(1).bytes(64 * np.dtype(_DTYPES[dtype]).itemsize)

    moved = arithmetic.patched(_tensor(bits, dtype, (8, 8)), kind, [], tensor="w")

    assert bytes(raw.octets(moved)) == bits


def test_the_base_itself_is_left_alone() -> None:
    base = torch.ones(4)

    arithmetic.patched(base, Kind.ADDITIVE, [(Decimal(1), torch.ones(4))], tensor="w")

    assert base.tolist() == [1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.bfloat16])
def test_a_value_that_leaves_its_dtype_is_refused_by_name(dtype: torch.dtype) -> None:
    base = torch.full((3,), torch.finfo(dtype).max, dtype=dtype)

    with pytest.raises(errors.ScaleOverflows) as caught:
        arithmetic.patched(
            base, Kind.LOG_RATIO, [(Decimal(1), torch.ones(3))], tensor="conv1.weight"
        )

    assert caught.value.tensor == "conv1.weight"
    assert caught.value.dtype == raw.NAMES[dtype]


def test_denormals_are_not_flushed() -> None:
    base = torch.tensor([1e-40, 0.0])

    moved = arithmetic.patched(
        base, Kind.ADDITIVE, [(Decimal(2), torch.tensor([1e-40, 1e-45]))], tensor="w"
    )

    least = 2.0**-149
    assert moved.tolist() == [3 * round(1e-40 / least) * least, 2 * least]
    arithmetic.check_denormals()


def test_a_process_that_flushes_denormals_is_refused() -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    try:
        with pytest.raises(errors.OperationFailed):
            arithmetic.check_denormals()
    finally:
        torch.set_flush_denormal(False)


def test_variances_move_by_a_ratio_and_back() -> None:
    base = torch.tensor([1.0, 2.5, 1e-3], dtype=torch.float64)
    ratio = torch.tensor([0.5, -2.0, 9.0])

    there = arithmetic.patched(base, Kind.LOG_RATIO, [(Decimal(1), ratio)], tensor="v")
    both = arithmetic.patched(
        base, Kind.LOG_RATIO, [(Decimal(1), ratio), (Decimal(-1), ratio)], tensor="v"
    )

    assert torch.allclose(there, base * ratio.double().exp(), rtol=1e-15)
    assert both.tolist() == base.tolist()


def test_a_ratio_rounds_through_f32_for_narrow_bases() -> None:
    base = torch.tensor([1.0, 3.0], dtype=torch.float16)
    ratio = torch.tensor([0.1, 0.1])

    moved = arithmetic.patched(base, Kind.LOG_RATIO, [(Decimal("0.7"), ratio)], tensor="v")

    x = np.float64(0.7) * np.float64(np.float32(0.1))
    grown = np.float64(float(Decimal(float(x)).exp()))
    expected = (base.double().numpy() * grown).astype("f4").astype("f2")
    assert moved.numpy().tobytes() == expected.tobytes()


PINNED = {
    "BF16": "e4540310e7e39719",
    "F16": "b225381d2e9d8580",
    "F32": "55a94e054037d5a3",
    "F64": "59eccfd644179019",
}


def _pin(dtype: str, device: str) -> str:
    """One digest over both kinds; the inputs are whole numbers scaled, the same everywhere."""
    base = (torch.arange(4096, dtype=torch.float64) % 251 - 125) / 64
    one, two = (
        (torch.arange(4096) * step % 509 - 254).to(torch.float32) / 3000 for step in (7, 11)
    )
    own = base.to(raw.DTYPES[dtype]).to(device)
    pairs = [(Decimal("0.7"), one.to(device)), (Decimal("-1.3"), two.to(device))]
    sums = arithmetic.patched(own, Kind.ADDITIVE, pairs, tensor="w")
    ratios = arithmetic.patched(own, Kind.LOG_RATIO, pairs, tensor="v")
    return hashlib.sha256(bytes(raw.octets(sums)) + bytes(raw.octets(ratios))).hexdigest()


@pytest.mark.parametrize("dtype", sorted(_DTYPES))
def test_the_bytes_of_the_contract_are_pinned(dtype: str) -> None:
    assert _pin(dtype, "cpu")[:16] == PINNED[dtype]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", sorted(_DTYPES))
def test_cuda_gives_the_bytes_of_the_cpu(dtype: str) -> None:
    assert _pin(dtype, "cuda")[:16] == PINNED[dtype]

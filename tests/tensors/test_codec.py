"""Unit gain, what survives, what does not depend on threads."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from service.layout.codecs import Codec, codes_bytes, halves_count
from service.tensors import codec, raw

ROWS = [Codec.Q8, Codec.Q4, Codec.Q2]
EXTENTS = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)


def _normal(shape: tuple[int, ...], seed: int, magnitude: float) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    rows = torch.rand((shape[0], *[1] * (len(shape) - 1)), generator=random) + 0.01
    return torch.randn(shape, generator=random) * rows * magnitude


def _round_trip(signature: Tensor, how: Codec) -> Tensor:
    return codec.decode(codec.encode(signature, how), how, tuple(signature.shape))


@given(
    shape=EXTENTS,
    seed=st.integers(0, 2**32),
    magnitude=st.sampled_from([1e-44, 1e-38, 1e-6, 1.0, 1e30]),
    how=st.sampled_from(list(Codec)),
)
@settings(deadline=None, max_examples=150)
def test_any_signature_packs_into_the_bytes_its_shape_says(
    shape: tuple[int, ...], seed: int, magnitude: float, how: Codec
) -> None:
    signature = _normal(shape, seed, magnitude)

    coded = codec.encode(signature, how)
    decoded = codec.decode(coded, how, shape)

    assert coded.codes.numel() == codes_bytes(how, shape)
    assert coded.halves.numel() == halves_count(how, shape)
    assert decoded.shape == signature.shape
    assert decoded.isfinite().all()


@given(
    shape=EXTENTS,
    seed=st.integers(0, 2**32),
    magnitude=st.sampled_from([1e-30, 1e-6, 1.0, 1e30]),
    how=st.sampled_from(ROWS),
)
@settings(deadline=None, max_examples=150)
def test_each_channel_keeps_its_gain(
    shape: tuple[int, ...], seed: int, magnitude: float, how: Codec
) -> None:
    rows = _normal(shape, seed, magnitude).reshape(shape[0], -1).double()

    packed = _round_trip(rows.float(), how).double()

    gain = (packed * rows).sum(1) / (rows * rows).sum(1)
    assert torch.allclose(gain, torch.ones_like(gain), atol=2**-10)


@given(
    shape=EXTENTS,
    seed=st.integers(0, 2**32),
    spread=st.sampled_from([1.0, 1e-4, 1e-12, 1e-30]),
    how=st.sampled_from(ROWS),
)
@settings(deadline=None, max_examples=150)
def test_no_channel_loses_its_largest_element(
    shape: tuple[int, ...], seed: int, spread: float, how: Codec
) -> None:
    rows = _normal(shape, seed, 1.0).reshape(shape[0], -1)
    rows[1:] *= spread
    rows[-1] = 0 if len(rows) > 1 else rows[-1]

    packed = _round_trip(rows, how)

    for row, kept in zip(rows, packed, strict=True):
        largest = row.abs().argmax()
        assert kept[largest].sign() == row[largest].sign()
        assert row.any() or not kept.any()


@pytest.mark.parametrize(
    ("how", "least"), [(Codec.Q8, 0.9999), (Codec.Q4, 0.993), (Codec.Q2, 0.93)]
)
def test_a_normal_signature_is_kept_as_closely_as_its_bits_allow(how: Codec, least: float) -> None:
    signature = _normal((32, 512), 3, 0.01)

    packed = _round_trip(signature, how)

    cosine = torch.nn.functional.cosine_similarity(packed.flatten(), signature.flatten(), dim=0)
    assert cosine > least


@pytest.mark.parametrize("how", ROWS)
def test_a_constant_channel_comes_back_whole(how: Codec) -> None:
    packed = _round_trip(torch.full((3, 8), -0.25), how)

    assert torch.allclose(packed, torch.full((3, 8), -0.25), rtol=2**-10)


def test_exact_values_come_back_bit_for_bit() -> None:
    signature = _normal((7, 5, 3), 4, 1e-5)

    assert torch.equal(_round_trip(signature, Codec.F32), signature)


@given(exponent=st.integers(-140, 127), seed=st.integers(0, 2**32))
@example(exponent=-149, seed=0)
@settings(deadline=None)
def test_sixteen_bits_reach_any_magnitude(exponent: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    signature = ((torch.rand(9, generator=random, dtype=torch.float64) + 1) * 2.0**exponent).float()

    packed = _round_trip(signature, Codec.F16)

    assert torch.allclose(packed, signature, rtol=2**-10, atol=2.0**-149)


@pytest.mark.parametrize("how", list(Codec))
@pytest.mark.parametrize("shape", [(2, 1_500_000), (3000, 700)])
def test_the_codes_do_not_depend_on_the_number_of_threads(
    how: Codec, shape: tuple[int, ...]
) -> None:
    signature = _normal(shape, 5, 0.01)

    one = codec.encode(signature, how)
    torch.set_num_threads(3)
    three = codec.encode(signature, how)

    assert bytes(raw.octets(one.codes)) == bytes(raw.octets(three.codes))
    assert bytes(raw.octets(one.halves)) == bytes(raw.octets(three.halves))


@pytest.mark.gpu
@pytest.mark.parametrize("how", list(Codec))
def test_cuda_decodes_to_the_bytes_of_the_cpu(how: Codec) -> None:
    shape = (64, 33, 3)
    coded = codec.encode(_normal(shape, 6, 0.01), how)
    moved = codec.Coded(coded.exponent, coded.codes.cuda(), coded.halves.cuda())

    there = codec.decode(moved, how, shape)

    assert torch.equal(there.cpu(), codec.decode(coded, how, shape))

"""Packing and unpacking at every size; what survives, and what does not depend on threads."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from service.layout.codecs import Codec, codes_bytes, halves_count, per_byte
from service.layout.deflate import BadStream
from service.tensors import codec, raw

WRITTEN = [how for how in Codec if how is not Codec.Q2]
ROWS = [how for how in WRITTEN if how.has_scales]
COARSE = [(Codec.Q4, 1.1), (Codec.FIVE, 2.2), (Codec.FIVE, 3.0)]
GRAINS = [*((how, None) for how in ROWS), *COARSE]
EXTENTS = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)


def _normal(shape: tuple[int, ...], seed: int, magnitude: float) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    rows = torch.rand((shape[0], *[1] * (len(shape) - 1)), generator=random) + 0.01
    return torch.randn(shape, generator=random) * rows * magnitude


def _round_trip(signature: Tensor, how: Codec, coarse: float | None = None) -> Tensor:
    return codec.decode(codec.encode(signature, how, coarse), how, tuple(signature.shape))


def _same(one: codec.Coded, other: codec.Coded) -> bool:
    halves = bytes(raw.octets(one.halves)) == bytes(raw.octets(other.halves))
    return halves and bytes(raw.octets(one.codes)) == bytes(raw.octets(other.codes))


@given(
    shape=EXTENTS,
    seed=st.integers(0, 2**32),
    magnitude=st.sampled_from([1e-44, 1e-38, 1e-6, 1.0, 1e30]),
    how=st.sampled_from(WRITTEN),
)
@settings(deadline=None, max_examples=80)
def test_any_signature_packs_into_the_bytes_its_shape_says(
    shape: tuple[int, ...], seed: int, magnitude: float, how: Codec
) -> None:
    signature = _normal(shape, seed, magnitude)

    coded = codec.encode(signature, how)
    decoded = codec.decode(coded, how, shape)

    assert coded.codes.numel() == (coded.deflated or codes_bytes(how, shape))
    assert coded.halves.numel() == halves_count(how, shape)
    assert decoded.shape == signature.shape
    assert decoded.isfinite().all()


@pytest.mark.parametrize("how", ROWS)
@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_every_size_around_a_full_byte_comes_back_in_its_place(how: Codec, rows: int) -> None:
    # Powers of two in alternation: what every codec keeps of them is the sign of each element.
    for columns in range(1, 2 * per_byte(how) + 2):
        signs = torch.tensor([1.0, -1.0, -1.0])[torch.arange(rows * columns) % 3]
        signature = signs.reshape(rows, columns) * 0.25

        packed = _round_trip(signature, how)

        assert torch.allclose(packed, signature, rtol=2**-10)


@pytest.mark.parametrize("how", ROWS)
@pytest.mark.parametrize("columns", [1023, 1024, 1025, 31 * 1024 - 1, 31 * 1024 + 1, 2**17 + 3])
def test_every_size_around_a_tile_comes_back_in_its_place(how: Codec, columns: int) -> None:
    random = torch.Generator().manual_seed(columns)
    signs = torch.randint(0, 2, (3, columns), generator=random) * 2.0 - 1.0

    packed = _round_trip(signs * 3.0, how)

    assert torch.allclose(packed, signs * 3.0, rtol=2**-10)


@pytest.mark.parametrize("how", WRITTEN)
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3)])
def test_an_empty_signature_takes_nothing_but_its_scales(
    how: Codec, shape: tuple[int, ...]
) -> None:
    packed = codec.encode(torch.empty(shape), how)

    assert (packed.codes.numel(), packed.halves.numel()) == (0, halves_count(how, shape))
    assert codec.decode(packed, how, shape).shape == shape


@given(
    shape=EXTENTS,
    seed=st.integers(0, 2**32),
    magnitude=st.sampled_from([1e-30, 1e-6, 1.0, 1e30, 1e37]),
    grain=st.sampled_from(GRAINS),
)
@settings(deadline=None, max_examples=100)
def test_each_channel_keeps_its_gain(
    shape: tuple[int, ...], seed: int, magnitude: float, grain: tuple[Codec, float | None]
) -> None:
    rows = _normal(shape, seed, magnitude).reshape(shape[0], -1).double()

    packed = _round_trip(rows.float(), *grain).double()

    gain = (packed * rows).sum(1) / (rows * rows).sum(1)
    assert torch.allclose(gain, torch.ones_like(gain), atol=2**-10)


@given(
    shape=EXTENTS,
    seed=st.integers(0, 2**32),
    spread=st.sampled_from([1.0, 1e-4, 1e-12, 1e-30]),
    grain=st.sampled_from(GRAINS),
)
@settings(deadline=None, max_examples=100)
def test_no_channel_loses_its_largest_element(
    shape: tuple[int, ...], seed: int, spread: float, grain: tuple[Codec, float | None]
) -> None:
    rows = _normal(shape, seed, 1.0).reshape(shape[0], -1)
    rows[1:] *= spread
    rows[-1] = 0 if len(rows) > 1 else rows[-1]

    packed = _round_trip(rows, *grain)

    for row, kept in zip(rows, packed, strict=True):
        largest = row.abs().argmax()
        assert kept[largest].sign() == row[largest].sign()
        assert row.any() or not kept.any()


@pytest.mark.parametrize(("how", "coarse"), GRAINS)
def test_the_largest_of_a_long_channel_is_kept_wherever_it_stands(
    how: Codec, coarse: float | None
) -> None:
    signature = torch.full((6, 5000), 1e-3)
    signature[range(6), [0, 1, 2500, 4998, 4999, 97]] = -1.0

    packed = _round_trip(signature, how, coarse)

    assert (packed[range(6), [0, 1, 2500, 4998, 4999, 97]] < 0).all()


@pytest.mark.parametrize(
    ("how", "coarse", "least", "bits"),
    [
        (Codec.Q8, None, 0.9999, 8),
        (Codec.Q4, None, 0.993, 4),
        (Codec.Q4, 1.1, 0.95, 2.1),
        (Codec.FIVE, 2.2, 0.82, 1.2),
        (Codec.FIVE, 3.0, 0.65, 0.85),
    ],
)
@pytest.mark.parametrize("shape", [(32, 512), (4, 9000)])
def test_a_normal_signature_is_kept_as_closely_as_its_bits_allow(
    how: Codec, coarse: float | None, least: float, bits: float, shape: tuple[int, int]
) -> None:
    signature = torch.randn(shape, generator=torch.Generator().manual_seed(3)) * 0.01

    coded = codec.encode(signature, how, coarse)

    packed = codec.decode(coded, how, shape)
    cosine = torch.nn.functional.cosine_similarity(packed.flatten(), signature.flatten(), dim=0)
    assert cosine > least
    assert 8 * coded.codes.numel() <= bits * signature.numel()


@pytest.mark.parametrize(("how", "coarse"), GRAINS)
def test_a_constant_channel_comes_back_whole(how: Codec, coarse: float | None) -> None:
    packed = _round_trip(torch.full((3, 8), -0.25), how, coarse)

    assert torch.allclose(packed, torch.full((3, 8), -0.25), rtol=2**-10)


def test_exact_values_come_back_bit_for_bit() -> None:
    signature = _normal((7, 5, 3), 4, 1e-5)

    assert torch.equal(_round_trip(signature, Codec.F32), signature)


@pytest.mark.parametrize("how", [Codec.F32, Codec.F16])
def test_a_single_number_is_a_signature(how: Codec) -> None:
    packed = _round_trip(torch.tensor(-0.5), how)

    assert torch.equal(packed, torch.tensor(-0.5))


@given(exponent=st.integers(-140, 127), seed=st.integers(0, 2**32))
@example(exponent=-149, seed=0)
@settings(deadline=None)
def test_sixteen_bits_reach_any_magnitude(exponent: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    signature = ((torch.rand(9, generator=random, dtype=torch.float64) + 1) * 2.0**exponent).float()

    packed = _round_trip(signature, Codec.F16)

    assert torch.allclose(packed, signature, rtol=2**-10, atol=2.0**-149)


# ── zeros ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("how", "coarse"), COARSE)
def test_a_sparse_signature_stays_silent_where_it_was(how: Codec, coarse: float) -> None:
    random = torch.Generator().manual_seed(7)
    signature = torch.randn(16, 576, generator=random)
    signature *= torch.rand(16, 576, generator=random) < 0.1

    coded = codec.encode(signature, how, coarse)

    packed = codec.decode(coded, how, (16, 576))
    assert not packed[signature == 0].any()
    assert packed.square().sum() < 1.25 * signature.square().sum()
    assert 8 * coded.codes.numel() < signature.numel()


# ── entropy coding ───────────────────────────────────────────────────────────────────────────


@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 400)),
    seed=st.integers(0, 2**32),
    power=st.sampled_from([1.0, 3.0, 9.0]),
    how=st.sampled_from(ROWS),
)
@settings(deadline=None, max_examples=100)
def test_what_was_deflated_unpacks_to_the_same(
    shape: tuple[int, int], seed: int, power: float, how: Codec
) -> None:
    signature = _normal(shape, seed, 1.0)
    signature = signature.abs().pow(power).copysign(signature)

    coded = codec.encode(signature, how)

    if coded.deflated:
        whole = codec._inflated(coded, codes_bytes(how, shape))
        plain = codec.Coded(coded.exponent, whole, coded.halves)
        assert coded.deflated < whole.numel()
        assert torch.equal(codec.decode(plain, how, shape), codec.decode(coded, how, shape))


@pytest.mark.parametrize(("how", "coarse"), COARSE)
def test_coarse_codes_come_close_to_their_entropy(how: Codec, coarse: float) -> None:
    random = torch.Generator().manual_seed(9)
    signature = torch.randn(64, 1152, generator=random)
    signature *= torch.rand(64, 1152, generator=random) ** 2  # heavy tails, as signatures have

    coded = codec.encode(signature, how, coarse)

    scales = coded.halves.float()[:, None] * 2.0**coded.exponent
    levels = (codec.decode(coded, how, (64, 1152)) / scales).round()
    share = np.unique(levels.numpy(), return_counts=True)[1] / levels.numel()
    entropy_bytes = -(share * np.log2(share)).sum() * levels.numel() / 8
    assert coded.codes.numel() < 1.08 * entropy_bytes


def test_a_stream_that_is_none_is_refused() -> None:
    coded = codec.encode(torch.eye(32), Codec.FIVE)
    assert coded.deflated
    broken = codec.Coded(coded.exponent, coded.codes.flip(0), coded.halves, coded.deflated)

    with pytest.raises(BadStream):
        codec.decode(broken, Codec.FIVE, (32, 32))


# ── threads and devices ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("how", "coarse"), [(Codec.F32, None), (Codec.F16, None), *GRAINS])
@pytest.mark.parametrize("shape", [(2, 1_500_000), (3000, 700), (40_000, 30)])
def test_the_codes_do_not_depend_on_the_number_of_threads(
    how: Codec, coarse: float | None, shape: tuple[int, ...]
) -> None:
    signature = _normal(shape, 5, 0.01)

    one = codec.encode(signature, how, coarse)
    torch.set_num_threads(3)
    three = codec.encode(signature, how, coarse)

    assert _same(one, three)


@pytest.mark.gpu
@pytest.mark.parametrize("how", WRITTEN)
def test_cuda_decodes_to_the_bytes_of_the_cpu(how: Codec) -> None:
    shape = (64, 33, 3)
    coded = codec.encode(_normal(shape, 6, 0.01), how)
    moved = codec.Coded(coded.exponent, coded.codes, coded.halves.cuda(), coded.deflated)

    there = codec.decode(moved, how, shape)

    assert torch.equal(there.cpu(), codec.decode(coded, how, shape))


@pytest.mark.gpu
@pytest.mark.parametrize("how", ROWS)
def test_cuda_encodes_as_closely_as_the_cpu(how: Codec) -> None:
    signature = _normal((64, 33, 3), 6, 0.01)

    there = codec.encode(signature.cuda(), how)

    packed = codec.decode(there, how, (64, 33, 3)).cpu()
    assert torch.allclose(packed, _round_trip(signature, how), rtol=2**-9, atol=1e-3)


@given(
    st.sampled_from([how for how in Codec if how is not Codec.Q2]),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 150),
    st.integers(0, 2**31),
)
def test_a_part_is_that_part_of_the_whole(
    how: Codec, rows: int, columns: int, start: int, seed: int
) -> None:
    signature = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    coded = codec.encode(signature, how)
    whole = codec.decode(coded, how, (rows, columns)).reshape(-1)
    start = min(start * codec.ALIGNED, rows * columns) // codec.ALIGNED * codec.ALIGNED

    for end in {start, min(start + 7, len(whole)), len(whole)}:
        part = codec.unpack(coded, how, (rows, columns)).part(start, end)

        assert torch.equal(part.view(torch.int32), whole[start:end].view(torch.int32))

"""The signature against the paper's formula, written out in numpy."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from service.tensors import projection
from service.tensors.sums import CHUNK

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def _trio(shape: tuple[int, ...], seed: int, dtype: torch.dtype, step: float) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    origin = torch.randn(shape, generator=random, dtype=torch.float64)
    moved = [
        origin + step * torch.randn(shape, generator=random, dtype=torch.float64) for _ in range(2)
    ]
    return [tensor.to(dtype) for tensor in (*moved, origin)]


def _paper(
    clean: Tensor, robust: Tensor, origin: Tensor | None
) -> tuple[npt.NDArray[np.float64], float]:
    """R and ||R||^2, as the paper defines them."""
    start = np.zeros(clean.numel()) if origin is None else origin.double().numpy().ravel()
    d_rob = robust.double().numpy().ravel() - start
    d_std = clean.double().numpy().ravel() - start
    square = d_std @ d_std
    signature = d_rob - (d_rob @ d_std / square if square > 0 else 0.0) * d_std
    return signature, float(signature @ signature)


@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple),
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from(DTYPES),
    with_origin=st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_the_signature_is_the_papers(
    shape: tuple[int, ...], seed: int, dtype: torch.dtype, *, with_origin: bool
) -> None:
    clean, robust, start = _trio(shape, seed, dtype, 0.05)
    origin = start if with_origin else None
    expected, square = _paper(clean, robust, origin)

    found = projection.moments(clean, robust, origin)
    energy = projection.energy(clean, robust, origin, found, found.coefficient)
    signature = projection.residual(clean, robust, origin, found.coefficient)

    size = float(robust.double().norm() + clean.double().norm())
    assert energy == pytest.approx(square, rel=1e-9, abs=(1e-12 * size) ** 2)
    error = np.abs(signature.double().numpy().ravel() - expected).max()
    assert error <= 1e-7 * np.abs(expected).max() + 1e-13 * size


def test_the_signature_is_orthogonal_to_the_clean_change() -> None:
    clean, robust, origin = _trio((64, 300), 1, torch.float32, 0.1)

    found = projection.moments(clean, robust, origin)
    signature = projection.residual(clean, robust, origin, found.coefficient).double()

    change = clean.double() - origin.double()
    assert abs(float((signature * change).sum() / signature.norm() / change.norm())) < 1e-8


def test_without_a_clean_change_nothing_is_taken_away() -> None:
    clean, robust, _ = _trio((4, 9), 2, torch.float32, 0.1)

    found = projection.moments(clean, robust, clean)

    assert found.coefficient == 0
    assert found.cosine == 0
    assert projection.energy(clean, robust, clean, found, 0.0) == found.dd


@pytest.mark.parametrize("factor", [1.0, 2.0, 1.5, 0.0, -1.0])
def test_a_robust_weight_along_the_clean_one_has_no_signature(factor: float) -> None:
    clean = torch.randn(50, 40, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    robust = clean * factor

    found = projection.moments(clean, robust, None)

    assert projection.energy(clean, robust, None, found, found.coefficient) == 0


def test_a_small_rest_beside_a_large_projection_keeps_its_digits() -> None:
    clean = torch.randn(3000, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    robust = clean * 2
    robust[0] += 1e-7

    found = projection.moments(clean, robust, None)
    energy = projection.energy(clean, robust, None, found, found.coefficient)

    assert energy == pytest.approx(_paper(clean, robust, None)[1], rel=1e-4)
    assert energy == pytest.approx(1e-14, rel=1e-2)


def test_the_cosine_is_that_of_the_two_changes() -> None:
    clean, robust, origin = _trio((20, 20), 5, torch.float64, 0.1)

    found = projection.moments(clean, robust, origin)

    d_rob, d_std = (robust - origin).flatten(), (clean - origin).flatten()
    expected = torch.nn.functional.cosine_similarity(d_rob, d_std, dim=0)
    assert found.cosine == pytest.approx(float(expected), abs=1e-12)


def test_measuring_does_not_depend_on_the_number_of_threads() -> None:
    clean, robust, origin = _trio((3, 800_000), 6, torch.float32, 0.1)

    one = projection.moments(clean, robust, origin)
    torch.set_num_threads(3)
    three = projection.moments(clean, robust, origin)

    assert one == three


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_the_chunks_of_a_kernel_add_up_to_it_exactly(dtype: torch.dtype) -> None:
    clean, robust, origin = _trio((2 * CHUNK + 77,), 8, dtype, 0.1)
    whole = projection.moments(clean, robust, origin)
    b = whole.coefficient

    added, square = projection.NOTHING, 0.0
    for part in (slice(at, at + CHUNK) for at in range(0, clean.numel(), CHUNK)):
        added += projection.moments(clean[part], robust[part], origin[part])
        square += projection.residual_energy(clean[part], robust[part], origin[part], b)

    assert added == whole
    assert square == projection.residual_energy(clean, robust, origin, b)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e200])
def test_what_cannot_be_summed_is_seen(value: float) -> None:
    clean = torch.tensor([[1.0, value]], dtype=torch.float64)

    assert not projection.moments(clean, torch.ones(1, 2, dtype=torch.float64), None).is_finite


def test_empty_and_single_numbers_have_a_signature_too() -> None:
    empty, one = torch.empty(0, 3), torch.tensor(2.0)

    assert projection.moments(empty, empty, None) == projection.Moments(0.0, 0.0, 0.0, 0.0)
    assert float(projection.residual(one, one * 3, None, 0.0)) == 4.0


@pytest.mark.gpu
def test_cuda_measures_within_a_billionth() -> None:
    trio = _trio((300, 4000), 7, torch.float16, 0.1)
    here = projection.moments(*trio)

    there = projection.moments(*(tensor.cuda() for tensor in trio))

    for name in ("dd", "ds", "ss", "ww"):
        assert getattr(there, name) == pytest.approx(getattr(here, name), rel=1e-9)

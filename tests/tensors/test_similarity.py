"""Sketches keep their promise, comparison and balance equal the formulas written plainly."""

import hashlib
from math import inf, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.tensors import similarity
from service.tensors.similarity import (
    WIDTH,
    Catalogue,
    Estimate,
    Measured,
    balance,
    estimates,
    overlap,
)

Array = NDArray[np.float64]
SHAPES = {"a": (40, 30), "b": (16, 8, 3, 3), "c": (2000,)}


def random(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sketched(kernels: dict[str, torch.Tensor], weight: float = 2.0) -> torch.Tensor:
    sketch = torch.zeros(WIDTH, dtype=torch.float64)
    for place, values in kernels.items():
        similarity.add_to_sketch(sketch, values, place, weight)
    return sketch


def measured(kernels: dict[str, torch.Tensor], weight: float = 2.0) -> Measured:
    keys = {similarity.key_of(place, tuple(v.shape)): v for place, v in kernels.items()}
    energies = {key: float((v.double() / weight).square().sum()) for key, v in keys.items()}
    length = sqrt(sum(energies.values()))
    return Measured(
        torch.tensor(sorted(keys), dtype=torch.int64),
        torch.tensor([energies[key] for key in sorted(keys)], dtype=torch.float64),
        (sketched(kernels, weight) / (length or 1.0)).to(torch.float16),
        length,
    )


def catalogue(signatures: list[Measured]) -> Catalogue:
    return Catalogue(
        torch.cat([torch.empty(0, dtype=torch.int64), *(each.keys for each in signatures)]),
        torch.cat([torch.empty(0, dtype=torch.float64), *(each.energies for each in signatures)]),
        torch.tensor([len(each.keys) for each in signatures], dtype=torch.int64),
        torch.cat([torch.empty(0, WIDTH), *(each.sketch[None].float() for each in signatures)]),
        torch.tensor([each.length for each in signatures], dtype=torch.float64),
    )


def estimate(one: dict[str, torch.Tensor], others: list[dict[str, torch.Tensor]]) -> Estimate:
    # Beside another one: what several are asked about together must not mix.
    asked = [measured({"c": random(99, SHAPES["c"])}), measured(one)]
    return list(estimates(asked, catalogue([measured(other) for other in others])))[1]


def exact_cosine(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    shared = one.keys() & other.keys()
    a, b = (
        np.concatenate([each[place].double().numpy().ravel() for place in sorted(shared)])
        for each in (one, other)
    )
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


# ── sketches ─────────────────────────────────────────────────────────────────────────────────


def test_estimates_are_off_by_no_more_than_they_say() -> None:
    base = {place: random(seed, shape) for seed, (place, shape) in enumerate(SHAPES.items())}
    others = []
    for number in range(150):
        mixed = {p: number / 150 * v + random(1000 + number, v.shape) for p, v in base.items()}
        others.append({p: v for p, v in mixed.items() if number % 3 or p != "c"})
    off = []

    found = estimate(base, others)

    for other, cosine, error in zip(others, found.cosines, found.errors, strict=True):
        off.append(float(cosine - exact_cosine(base, other)) / float(error))
    assert np.sqrt(np.mean(np.square(off))) < 1.1
    assert max(map(abs, off)) < 5
    assert float(found.errors.max()) < 0.06


def test_a_kernel_that_one_lacks_takes_no_part() -> None:
    kernel, alone = random(0, (50, 50)), 100 * random(1, (50, 50))

    found = estimate({"a": kernel}, [{"a": kernel, "b": alone}])

    assert found.own.tolist() == [1.0]
    assert found.other.item() == pytest.approx(1e-4, rel=0.2)
    assert float(found.errors) > 1  # so little is shared that nothing can be said


def test_what_shares_nothing_is_not_alike() -> None:
    kernel = random(0, (50, 50))
    others = [{"b": kernel}, {"a": kernel.reshape(2500)}, {}]

    found = estimate({"a": kernel}, others)

    assert found.cosines.tolist() == found.errors.tolist() == found.own.tolist() == [0.0] * 3


def test_an_empty_signature_and_an_empty_catalogue_can_be_asked_about() -> None:
    alone = {"a": random(0, (50,))}

    assert estimate(alone, []).cosines.tolist() == []
    assert estimate({}, [alone]).cosines.tolist() == [0.0]


def test_a_sketch_is_the_sum_that_its_docstring_says() -> None:
    values = random(7, (70, 31))
    wanted = np.zeros(WIDTH)
    seeds = hashlib.sha256(b"w\n70x31\n0").digest()
    first, second = (int.from_bytes(seeds[at : at + 4], "little") for at in (0, 4))

    for number, value in enumerate(values.double().numpy().ravel() / 2.0):
        mixed = number ^ first
        mixed = ((mixed ^ mixed >> 16) * 0x21F0AAAD + second) % 2**32
        mixed = ((mixed ^ mixed >> 15) * 0x735A2D97) % 2**32
        mixed ^= mixed >> 15
        wanted[mixed % WIDTH] += -value if mixed >> 31 else value

    np.testing.assert_allclose(sketched({"w": values}).numpy(), wanted, rtol=0, atol=1e-12)


def test_a_kernel_of_several_chunks_keeps_its_length() -> None:
    values = random(3, (2**20 + 5,))

    sketch = sketched({"w": values}, 1.0)

    assert float(sketch.square().sum() / values.double().square().sum()) == pytest.approx(
        1, abs=0.2
    )


# ── exact ────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([0.0, -0.0, 1.0, -2.5, 1e-30, 3e18]), min_size=6, max_size=6),
        min_size=1,
        max_size=4,
    )
)
def test_overlap_equals_the_plain_formulas(rows: list[list[float]]) -> None:
    tensors = [torch.tensor(row).reshape(2, 3) for row in rows]
    plain = np.array([t.numpy().ravel() for t in tensors], dtype=np.float64)

    found = overlap(tensors)

    np.testing.assert_allclose(found.inner.numpy(), plain @ plain.T, rtol=1e-12)
    signs = np.sign(plain)
    for i, one in enumerate(signs):
        for j, other in enumerate(signs):
            assert found.both[i, j] == np.sum((one != 0) & (other != 0))
            assert found.opposed[i, j] == np.sum(one * other < 0)


# ── balance ──────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**31), st.floats(0.01, 100))
def test_a_balanced_sum_projects_on_each_signature_as_if_alone(
    count: int, seed: int, size: float
) -> None:
    vectors: Array = np.random.default_rng(seed).standard_normal((count, 40))
    vectors[0] *= size
    wanted = np.random.default_rng(seed + 1).uniform(-1, 1, count)

    found = balance(torch.from_numpy(vectors @ vectors.T))

    assert found.solve is not None
    scales = found.solve.numpy() @ wanted
    gram = vectors @ vectors.T
    np.testing.assert_allclose(scales, np.linalg.solve(gram, np.diag(gram) * wanted), rtol=1e-7)
    np.testing.assert_allclose(
        vectors @ (scales @ vectors), wanted * np.sum(vectors**2, axis=1), rtol=1e-7, atol=1e-9
    )


def test_the_condition_number_tells_likeness_and_not_size() -> None:
    apart = torch.tensor([[1.0, 0.0], [0.0, 1e-8]], dtype=torch.float64)
    alike = torch.tensor([[1.0, 0.99], [0.99, 1.0]], dtype=torch.float64)

    assert balance(apart).condition == pytest.approx(1)
    assert balance(alike).condition == pytest.approx(199)


@pytest.mark.parametrize(
    "gram",
    [
        [[1.0, 1.0], [1.0, 1.0]],
        [[1.0, 1.2], [1.2, 1.0]],
        [[1.0, 0.0], [0.0, 0.0]],
        [[inf, 0.0], [0.0, 1.0]],
    ],
)
def test_what_cannot_be_balanced_has_no_solution(gram: list[list[float]]) -> None:
    found = balance(torch.tensor(gram, dtype=torch.float64))

    assert found.condition > 1e12
    assert found.condition < inf or found.solve is None

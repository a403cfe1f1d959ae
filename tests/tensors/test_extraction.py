"""What rides beside kernels, and how well a packed signature keeps."""

import math

import pytest
import torch

from service.tensors import extraction


def test_a_packed_signature_is_measured_as_defined() -> None:
    random = torch.Generator().manual_seed(1)
    signature = torch.randn(40, 30, generator=random)
    packed = signature * 0.9 + 0.2 * torch.randn(40, 30, generator=random)

    found = extraction.compare(signature, packed, weight=25.0)

    r, q = signature.double().flatten(), packed.double().flatten()
    gain = float(q @ r / (r @ r))
    assert found.gain == pytest.approx(gain)
    assert found.cosine == pytest.approx(float(q @ r / q.norm() / r.norm()))
    assert found.relative_error == pytest.approx(float((q - r).norm() / r.norm()))
    assert found.noise_to_weight == pytest.approx(float((q - gain * r).norm() / 5))


def test_an_unpacked_signature_loses_nothing() -> None:
    signature = torch.linspace(-1, 1, 77)

    found = extraction.compare(signature, signature, weight=1.0)

    assert found.fields() == pytest.approx(
        {"gain": 1.0, "cosine": 1.0, "relative_error": 0.0, "noise_to_weight": 0.0}, abs=1e-7
    )


def test_nothing_at_all_loses_nothing() -> None:
    nothing = extraction.compare(torch.zeros(3), torch.zeros(3), weight=1.0)

    assert nothing.fields() == {
        "gain": 1.0,
        "cosine": 1.0,
        "relative_error": 0.0,
        "noise_to_weight": 0.0,
    }


def test_a_difference_is_taken_before_it_is_rounded() -> None:
    clean = torch.tensor([1e8, 1.0], dtype=torch.float64)
    robust = torch.tensor([1e8 + 1e-3, 1.0], dtype=torch.float64)

    assert extraction.difference(clean, robust).tolist() == pytest.approx([1e-3, 0.0], rel=1e-4)


def test_variances_move_by_their_ratio_within_bounds() -> None:
    clean = torch.tensor([1.0, 2.0, 1e-3, 1e6])
    robust = torch.tensor([2.0, 2.0, 1e6, 1e-3])

    ratio, zeroed = extraction.log_ratio(clean, robust)

    bound = math.log(1e4)
    assert ratio.tolist() == pytest.approx([math.log(2), 0.0, bound, -bound])
    assert zeroed == 0


@pytest.mark.parametrize("bad", [0.0, 9e-13, -1.0, math.nan, math.inf, -math.inf])
def test_a_variance_that_says_nothing_gives_no_ratio(bad: float) -> None:
    sound, odd = torch.tensor([1.0, 1.0, 3.0]), torch.tensor([bad, 2.0, 3.0])

    for clean, robust in ((sound, odd), (odd, sound)):
        ratio, zeroed = extraction.log_ratio(clean, robust)

        assert ratio[0] == 0
        assert ratio[1].abs() == pytest.approx(math.log(2))
        assert zeroed == 1

"""What people are told of an extraction, whatever a summary knows."""

import itertools
from typing import Any

from service.client.summaries import summary_lines

WHOLE: dict[str, Any] = {
    "layers": {"energy": 0.85},
    "quality": "standard",
    "projection": "pair",
    "order": "by name",
    "kernels": 4,
    "kernels_kept": 3,
    "parameters": 1000,
    "parameters_kept": 300,
    "base_bytes": 4000,
    "size_bytes": 100,
    "energy_kept": 0.9,
    "gain": 1.0,
    "cosine": 0.98,
    "noise_to_weight": 0.02,
    "quietest": {"tensor": "conv.weight", "relative_norm": 0.006, "noise_floor": 0.002},
    "warnings": ["it is loud"],
}


def test_a_summary_is_told_in_words() -> None:
    assert summary_lines(WHOLE) == [
        "keeps 3 of 4 kernels, 300 of 1000 parameters, 90% of the change",
        "energy 0.85, quality standard, projection pair, forward order by name",
        "packed with gain 1.0000, cosine 0.9800, noise of 2.0% of the weights",
        "2.50% of its base",
        (
            "nearest to noise: conv.weight changes by 0.60% of its weight, 3.0 times the rounding "
            "of the models' dtypes"
        ),
        "warning: it is loud",
    ]


def test_what_a_summary_does_not_know_is_left_out() -> None:
    """A file that was made elsewhere says of itself what it likes."""
    for known in itertools.chain(([name] for name in WHOLE), itertools.combinations(WHOLE, 2)):
        told = "\n".join(summary_lines({name: WHOLE[name] for name in known}))

        assert "None" not in told
    assert summary_lines({}) == []

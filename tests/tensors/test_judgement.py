"""Verdicts on unknown signatures: by the margin, with reasons for doubt."""

import pytest

from service.tensors.judgement import Candidate, judge


def candidate(
    name: str, cosine: float, *labels: str, error: float = 0.0, share: float = 1.0
) -> Candidate:
    return Candidate(f"v/{name}@1", labels or (name,), cosine, error, share, share)


MEASURED = {
    # Cosines of second extractions and of another data set's, as they were found for real nets.
    "noise": [("noise", 0.75), ("blur", 0.17), ("impulse", 0.55), ("contrast", 0.29)],
    "impulse": [("noise", 0.62), ("blur", 0.11), ("impulse", 0.79), ("contrast", 0.21)],
    "contrast": [("noise", 0.17), ("blur", 0.29), ("impulse", -0.08), ("contrast", 0.45)],
}


@pytest.mark.parametrize("label", MEASURED)
def test_what_was_measured_is_told_right_and_trusted(label: str) -> None:
    verdict = judge([candidate(name, cosine) for name, cosine in MEASURED[label]])

    assert (verdict.label, verdict.trusted) == (label, True)
    nearest, second = sorted((cosine for _, cosine in MEASURED[label]), reverse=True)[:2]
    assert verdict.margin == pytest.approx(nearest - second)
    assert verdict.confidence > 0.9


def test_the_margin_is_to_the_second_label_and_not_to_the_second_patch() -> None:
    verdict = judge(
        [
            candidate("a", 0.8, "noise"),
            candidate("b", 0.79, "noise"),
            candidate("c", 0.4, "blur"),
            candidate("d", 0.1, "fog"),
        ]
    )

    assert (verdict.label, verdict.second) == ("noise", "blur")
    assert verdict.margin == pytest.approx(0.4)
    assert verdict.trusted


def test_a_label_that_every_patch_has_tells_nothing() -> None:
    verdict = judge(
        [
            candidate("a", 0.8, "demo", "noise"),
            candidate("b", 0.4, "demo", "blur"),
            candidate("c", 0.1, "demo", "fog"),
        ]
    )

    assert verdict.label == "noise"
    assert {each.label: each.margin for each in verdict.labels}["demo"] is None


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ([candidate("a", 0.8), candidate("b", 0.75), candidate("c", 0.1)], "margin"),
        ([candidate("a", 0.8), candidate("b", 0.6, error=0.08), candidate("c", 0.1)], "margin"),
        ([candidate("a", 0.15), candidate("b", 0.01), candidate("c", 0.0)], "far"),
        ([candidate("a", 0.8, share=0.3), candidate("b", 0.2), candidate("c", 0.1)], "only 30%"),
        ([candidate("a", 0.8), candidate("b", 0.2)], "2 label"),
        ([candidate("a", 0.9, "x"), candidate("b", 0.9, "x")], "no signature of another label"),
    ],
)
def test_a_doubtful_answer_says_why(found: list[Candidate], reason: str) -> None:
    verdict = judge(found)

    assert not verdict.trusted
    assert any(reason in said for said in verdict.reasons), verdict.reasons


def test_without_anything_to_compare_with_there_is_no_label() -> None:
    verdict = judge([])

    assert (verdict.label, verdict.trusted, verdict.confidence) == (None, False, 0.0)
    assert "architecture" in verdict.reasons[0]

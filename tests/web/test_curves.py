from decimal import Decimal
from math import sqrt
from statistics import stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.web.curves import CURVES_DRAWN, curve_chart, studies
from service.web.rows.evaluations import Point


def point(
    scale: str,
    accuracy: float,
    *,
    corruption: str = "fog",
    base: str = "vision/net@1",
    spread: float | None = None,
    images: int = 100,
) -> Point:
    seeds = 1 if spread is None else 2
    return Point(base, "digits", corruption, None, Decimal(scale), accuracy, images, seeds, spread)


curves = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.decimals(-10, 10, places=4).map(str),
        st.floats(0, 1),
        st.none() | st.floats(0, 0.5),
        st.integers(1, 10**9),
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda each: (each[0], Decimal(each[1])),
).map(lambda rows: sorted(rows, key=lambda each: (each[0], Decimal(each[1]))))


@settings(max_examples=100, deadline=None)
@given(curves)
def test_every_point_and_its_error_bar_stand_within_the_picture(
    rows: list[tuple[str, str, float, float | None, int]],
) -> None:
    points = [
        point(scale, accuracy, corruption=corruption, spread=spread, images=n)
        for corruption, scale, accuracy, spread, n in rows
    ]

    (study,) = studies(points)
    chart = curve_chart(study)

    marks = [mark for trace in chart.traces for mark in trace.marks]
    assert [mark.point for mark in marks] == points
    top, bottom = chart.ticks[-1].y, chart.ticks[0].y
    for mark in marks:
        assert 0 <= mark.x <= 100
        assert top - 0.1 <= mark.high <= mark.y <= mark.low <= bottom + 0.1
    assert 2 <= len(chart.ticks) <= 8
    assert all(b.x - a.x >= 12 for a, b in zip(chart.columns, chart.columns[1:], strict=False))


def test_one_seed_errs_by_its_images_and_several_by_how_they_differ() -> None:
    accuracies = [0.7, 0.9]

    one = point("1", 0.8)
    two = point("1", 0.8, spread=stdev(accuracies))
    alike = point("1", 0.8, spread=0.0)

    assert one.error == alike.error == pytest.approx(sqrt(0.8 * 0.2 / 100))
    assert two.error == pytest.approx(stdev(accuracies) / sqrt(2))


def test_bases_are_told_apart_and_corruptions_beyond_the_pictures_stay_in_the_table() -> None:
    many = [point("1", 0.5, corruption=f"kind-{n:02}") for n in range(CURVES_DRAWN + 2)]

    first, second = studies([*many, point("1", 0.5, base="vision/other@1")])

    assert (len(first.curves), len(curve_chart(first).traces)) == (CURVES_DRAWN + 2, CURVES_DRAWN)
    assert (second.base, len(second.curves)) == ("vision/other@1", 1)

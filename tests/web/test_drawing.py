from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.web import drawing

NARROW = "\u202f"


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (14_653, "14.7 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (2_493_208, "2.5 MB"),
        (1_073_741_824, "1.1 GB"),
        (5_000_000_000_000, "5.0 TB"),
    ],
)
def test_sizes_are_written_for_people(size_bytes: int, text: str) -> None:
    assert drawing.size(size_bytes).replace(NARROW, " ") == text


@given(st.integers(0, 9 * 10**14))
def test_a_size_never_needs_a_fourth_digit(size_bytes: int) -> None:
    assert float(drawing.size(size_bytes).split(NARROW)[0]) < 1000


@pytest.mark.parametrize(
    ("share", "text"), [(0.0059, "0.59 %"), (0.128, "12.8 %"), (1, "100 %"), (0, "0 %")]
)
def test_shares_are_written_for_people(share: float, text: str) -> None:
    assert drawing.percent(share).replace(NARROW, " ") == text


def test_numbers_keep_their_digits() -> None:
    assert drawing.number(0.39658) == "0.397"
    assert drawing.number(0.00004) == "4.0e-05"
    assert drawing.number(0) == "0.000"
    assert drawing.count(622131) == f"622{NARROW}131"
    assert drawing.scale("0.5000") == "0.5"


def test_moments_are_told_in_utc() -> None:
    when = datetime(2026, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))

    assert drawing.time(when) == ('<time datetime="2026-02-28T23:30:00Z">2026-02-28 23:30</time>')


def test_labels_are_links_and_never_markup() -> None:
    found = drawing.labels(["fog", "<b>&"], "/patches", "fog")

    assert found == (
        '<span class="labels"><a class="label" href="/patches?label=fog" aria-current="true">fog'
        '</a><a class="label" href="/patches?label=%3Cb%3E%26">&lt;b&gt;&amp;</a></span>'
    )
    assert drawing.labels([], "/patches") == ""

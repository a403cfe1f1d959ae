"""Range headers, kind and hostile, against the words of RFC 9110."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import errors
from service.http.ranges import has_it_already, range_applies, requested_range
from service.names import ByteRange

TAG = "s1-" + "ab" * 32


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-9", 0, 10),
        ("bytes=3-", 3, 10),
        ("bytes=3-6", 3, 7),
        ("bytes=9-", 9, 10),
        ("bytes=0-999", 0, 10),
        ("bytes=-1", 9, 10),
        ("bytes=-10", 0, 10),
        ("bytes=-999", 0, 10),
        ("BYTES=3-6", 3, 7),
        ("bytes= 3-6 ", 3, 7),
        ("bytes=0003-06", 3, 7),
        ("bytes=2-" + "9" * 5000, 2, 10),
        ("bytes=-" + "9" * 5000, 0, 10),
    ],
)
def test_a_range_is_clamped_to_the_file(header: str, start: int, end: int) -> None:
    assert requested_range(header, 10) == ByteRange(start, end)


@pytest.mark.parametrize(
    "header", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=" + "9" * 5000 + "-", "bytes=99-100"]
)
def test_a_range_outside_the_file_is_an_error(header: str) -> None:
    with pytest.raises(errors.BadRange) as caught:
        requested_range(header, 10)

    assert caught.value.size_bytes == 10


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-3",
        "bytes=0x1-2",
        "bytes=1.0-2",
        "bytes=--5",
        "bytes=1-2-3",
        "bytes=+1-2",
        "bytes=1 - 2",
        "bytes=٣-٦",
        "items=0-5",
        "bytes=0-1,3-4",
        "bytes=0-1, -1",
        "bytes=0-5\x00",
        "bytes 0-5/10",
    ],
)
def test_what_is_no_single_range_asks_for_the_whole_file(header: str | None) -> None:
    assert requested_range(header, 10) is None


def test_an_empty_file_has_a_suffix_but_no_first_byte() -> None:
    assert requested_range("bytes=-5", 0) is None
    with pytest.raises(errors.BadRange):
        requested_range("bytes=0-", 0)


@given(st.text() | st.from_regex(r"bytes=[0-9]{0,30}-[0-9]{0,30}", fullmatch=True), st.integers(0))
def test_any_header_gives_a_range_inside_the_file_or_none(header: str, size_bytes: int) -> None:
    try:
        found = requested_range(header, size_bytes)
    except errors.BadRange:
        return

    assert found is None or 0 <= found.start < found.end <= size_bytes


@pytest.mark.parametrize(
    ("if_range", "applies"),
    [
        (None, True),
        (f'"{TAG}"', True),
        (f'W/"{TAG}"', False),
        ('"other"', False),
        (TAG, False),
        ("Wed, 21 Oct 2015 07:28:00 GMT", False),
        ("", False),
    ],
)
def test_if_range_compares_strongly(if_range: str | None, applies: bool) -> None:  # noqa: FBT001
    assert range_applies(if_range, TAG) is applies


@pytest.mark.parametrize(
    ("if_none_match", "has"),
    [
        (None, False),
        ("*", True),
        (f'"{TAG}"', True),
        (f'W/"{TAG}"', True),
        (f'"a", W/"b" ,"{TAG}"', True),
        ('"a", "b"', False),
        (TAG, False),
        (f'"x{TAG}"', False),
        ("", False),
    ],
)
def test_if_none_match_compares_weakly(if_none_match: str | None, has: bool) -> None:  # noqa: FBT001
    assert has_it_already(if_none_match, TAG) is has

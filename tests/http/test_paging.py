from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response

from service import errors
from service.http.paging import Paging


def paging(cursor: str | None = None, *, limit: int = 2, query: str = "limit=2&q=a%20b") -> Paging:
    scope = {"type": "http", "path": "/v1/things", "query_string": query.encode(), "headers": []}
    return Paging(Request(scope), Response(), limit, cursor)


def test_a_list_is_walked_to_its_end() -> None:
    rows = [1, 2, 3, 4, 5]
    seen: list[int] = []
    cursor: str | None = None

    while True:
        asked = paging(cursor)
        after = asked.after(int) or 0
        page = asked.page(
            [row for row in rows if row > after][: asked.fetch], key=lambda row: row, view=int
        )
        seen += page.items
        if (cursor := page.next) is None:
            break

    assert seen == rows


def test_the_link_keeps_what_was_asked() -> None:
    asked = paging(query="limit=2&q=a%20b&cursor=old")

    page = asked.page([1, 2, 3], key=lambda row: row, view=int)

    expected = f'</v1/things?limit=2&q=a+b&cursor={page.next}>; rel="next"'
    assert asked.response.headers["link"] == expected


def test_the_last_page_has_no_link() -> None:
    asked = paging()

    page = asked.page([1, 2], key=lambda row: row, view=int)

    assert page.next is None
    assert "link" not in asked.response.headers


@given(st.datetimes(timezones=st.just(UTC)), st.text())
def test_a_cursor_carries_its_key(moment: datetime, text: str) -> None:
    first = paging(limit=1).page([0, 1], key=lambda _: (moment, text), view=int)

    assert paging(first.next).after(tuple[datetime, str]) == (moment, text)


@given(st.text(max_size=40))
def test_a_cursor_from_elsewhere_is_refused(cursor: str) -> None:
    with pytest.raises(errors.BadRequest, match="cursor"):
        paging(cursor).after(tuple[datetime, str])

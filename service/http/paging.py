"""Lists a page at a time: opaque cursors that name the last item seen, never an offset.

A page is as fast in the middle of the list as at its start, and items that come or go meanwhile
neither repeat nor hide others.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Query, Request, Response
from pydantic import TypeAdapter, ValidationError

from service import errors
from service.schemas.wire import Page

MAX_LIMIT: Final = 200
DEFAULT_LIMIT: Final = 100

Row = TypeVar("Row")
Item = TypeVar("Item")
Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Paging:
    """Which page is asked for.

    rows = tokens(session, after=paging.after(int), limit=paging.fetch)
    return paging.page(rows, key=lambda row: row.id, view=TokenView.model_validate)
    """

    request: Request
    response: Response
    limit: int
    cursor: str | None

    @property
    def fetch(self) -> int:
        """How many rows to read: one more than the page holds, to know whether more follow."""
        return self.limit + 1

    def after(self, form: type[Key]) -> Key | None:
        """The key of the last item seen, of the given type; None at the start.

        Raises `BadRequest` where the cursor is not one that such a list gave.
        """
        return None if self.cursor is None else _read(self.cursor, form)

    def page(
        self, rows: Sequence[Row], *, key: Callable[[Row], Any], view: Callable[[Row], Item]
    ) -> Page[Item]:
        """The page of these rows, with its `Link` header set."""
        shown = rows[: self.limit]
        cursor = _written(key(shown[-1])) if len(rows) > self.limit else None
        if cursor is not None:
            asked = [
                pair for pair in self.request.query_params.multi_items() if pair[0] != "cursor"
            ]
            query = urlencode([*asked, ("cursor", cursor)])
            self.response.headers["Link"] = f'<{self.request.url.path}?{query}>; rel="next"'
        return Page[Item](items=[view(row) for row in shown], next=cursor)


async def _paging(
    request: Request,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items a page.")] = DEFAULT_LIMIT,
    cursor: Annotated[
        str | None, Query(max_length=1000, description="`next` of the page before.")
    ] = None,
) -> Paging:
    return Paging(request, response, limit, cursor)


Pages = Annotated[Paging, Depends(_paging)]


def _written(key: object) -> str:
    plain = TypeAdapter(Any).dump_json(key)
    return base64.urlsafe_b64encode(plain).rstrip(b"=").decode()


def _read(cursor: str, form: type[Key]) -> Key:
    try:
        plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return TypeAdapter(form).validate_python(json.loads(plain), strict=False)
    except (binascii.Error, ValueError, ValidationError) as error:
        raise errors.BadRequest(
            "the cursor is not one of this list; begin without one, then follow `next`"
        ) from error

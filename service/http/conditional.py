"""Conditional requests on mutable JSON (RFC 9110 section 13), and how long a caller will wait.

The entity tag of a mutable thing is the number of its last move or edit: `"7"`.
"""

import re
from typing import Annotated, Final

from fastapi import Depends, Header, Response

from service import errors
from service.registry.moves import Seen

MAX_WAIT_S: Final = 60.0

_MOVE = re.compile(r'\s*(?:W/)?"([0-9]{1,18})"\s*')
_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(?=$|[,;])', re.IGNORECASE)

_IfMatch = Annotated[
    str | None,
    Header(
        max_length=200, description="The ETag that the change was decided on.", examples=['"7"']
    ),
]
_IfNoneMatch = Annotated[
    str | None, Header(max_length=200, description="`*` where the thing should not exist yet.")
]


async def _seen_move(if_match: _IfMatch = None, if_none_match: _IfNoneMatch = None) -> Seen:
    if if_match is not None and if_none_match is not None:
        raise errors.BadRequest("send either If-Match or If-None-Match, not both")
    if if_none_match is not None:
        if if_none_match.strip() != "*":
            raise errors.BadRequest("If-None-Match of a change must be *")
        return "nothing"
    if if_match is None or if_match.strip() == "*":
        return None  # `*` names no state: whoever moved meanwhile would be overwritten
    found = _MOVE.fullmatch(if_match)
    if found is None:
        raise errors.BadRequest('If-Match must be one ETag as it was read, such as "7"')
    # Weak or not is one here: a proxy that compresses weakens the tag of the same state.
    return int(found[1])


SeenMove = Annotated[Seen, Depends(_seen_move)]
"""What the caller saw of a mutable thing; `registry.moves.check` decides."""


def tag(number: int) -> str:
    """The ETag header of a move or edit."""
    return f'"{number}"'


def not_modified(etag: str) -> Response:
    """The answer to a caller who has this state already."""
    return Response(status_code=304, headers={"ETag": etag, "Cache-Control": "no-cache"})


async def _wait(
    prefer: Annotated[
        str | None,
        Header(
            description="`wait=N`: answer within N seconds (at most 60), once there is news.",
            examples=["wait=30"],
        ),
    ] = None,
) -> float:
    """How many seconds the caller would wait; what is not understood is ignored (RFC 7240)."""
    found = _WAIT.search(prefer or "")
    return min(float(found[1]), MAX_WAIT_S) if found else 0.0


Wait = Annotated[float, Depends(_wait)]


def applied(response: Response, wait_s: float) -> None:
    """Say that the caller's wish to wait was heard (RFC 7240 section 3)."""
    response.headers["Vary"] = "Prefer"
    if wait_s:
        response.headers["Preference-Applied"] = f"wait={wait_s:.0f}"

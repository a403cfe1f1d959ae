"""Which state a change was decided on, as request headers."""

from typing import Literal

Seen = int | Literal["nothing"]
"""The number of the last move that was read; "nothing": the thing should not exist yet."""


def conditions(seen: Seen) -> dict[str, str]:
    """The headers that make the service refuse the change if the state has moved."""
    return {"If-None-Match": "*"} if seen == "nothing" else {"If-Match": f'"{seen}"'}

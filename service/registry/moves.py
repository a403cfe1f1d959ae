"""What a caller saw before it decided: whoever moves first wins, and the other is told."""

from typing import Literal

from service import errors

Seen = int | Literal["nothing"] | None
"""The move that the caller read (If-Match), "nothing" (If-None-Match: *), or None: unsaid."""


def check(kind: str, name: str, *, seen: Seen, now: int | None) -> None:
    """Check that the thing stands where the caller believes; `now` None: it does not exist.

    Raises `StateNotNamed` and `StateMoved`.
    """
    if seen is None:
        raise errors.StateNotNamed(kind, name, "" if now is None else str(now))
    if seen == "nothing":
        if now is not None:
            raise errors.StateMoved(kind, name, "nothing", str(now))
    elif seen != now:
        raise errors.StateMoved(kind, name, str(seen), "nothing" if now is None else str(now))

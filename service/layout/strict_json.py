"""JSON from strangers: read so that no two readers can differ about it, and shown in short."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, NoReturn

_SHOWN_CHARACTERS = 120
_SHOWN_PARTS = 8


class BadJson(Exception):
    """What is wrong, as the rest of a sentence about the text: `repeats the name 'a'`."""


def json_object(text: bytes) -> dict[str, Any]:
    """Read a JSON object in UTF-8 in which each name stands once; raises `BadJson`."""
    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=once_each,
            parse_int=_number,
            parse_constant=_refuse_constant,
        )
    except UnicodeDecodeError as error:
        raise BadJson("is not UTF-8") from error
    except RecursionError as error:
        raise BadJson("is nested too deeply") from error
    except ValueError as error:  # bad JSON, and numbers of more than 4300 digits
        raise BadJson(f"is not JSON: {str(error)[:_SHOWN_CHARACTERS]}") from error
    if not isinstance(value, dict):
        raise BadJson("is not a JSON object")
    return value


def once_each(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these names and values; raises `BadJson` where a name repeats."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise BadJson(f"repeats the name {shown(twice)}")
    return fields


def shown(value: Any) -> str:
    """A hostile value, short and printable; never walks into it, since it may be very deep."""
    match value:
        case dict():
            return "{…}"
        case list():
            parts = [
                "[…]" if isinstance(part, list) else shown(part) for part in value[:_SHOWN_PARTS]
            ]
            return f"[{', '.join(parts)}{', …' if len(value) > len(parts) else ''}]"
        case str():
            more = "…" if len(value) > _SHOWN_CHARACTERS else ""
            return repr(value[:_SHOWN_CHARACTERS]) + more
        case _:
            return repr(value)[:_SHOWN_CHARACTERS]


def _number(text: str) -> int | float:
    return -0.0 if text == "-0" else int(text)  # a float to other readers too, so never a size


def _refuse_constant(text: str) -> NoReturn:
    raise BadJson(f"holds {text}, which is not JSON")

"""Which bytes of a file a request asks for, and whether it has them already (RFC 9110).

One range a response: a request for several gets the whole file, as section 14.2 allows, since
multipart/byteranges can be made to cost far more than it gives. A header that does not follow the
grammar counts as absent, as the RFC has it; only a range outside the file is an error.
"""

import re
from typing import Final

from service import errors
from service.names import ByteRange

# The whole header; blanks as section 5.6.1 allows them around the element of a list.
_ONE_RANGE: Final = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.IGNORECASE | re.ASCII)
_ENTITY_TAG: Final = re.compile(r'(?:W/)?"([^"]*)"')
_MAX_DIGITS: Final = 18


def requested_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """The range that a `Range` header selects from a file; None for the whole file.

    Raises `BadRange` where it selects nothing. Section 14.1.2.
    """
    found = _ONE_RANGE.fullmatch(header or "")
    if found is None or found[1] == found[2] == "":
        return None
    first, last = (_position(text) for text in found.groups())
    if first is None:
        return _suffix(last or 0, size_bytes)
    if last is not None and last < first:
        return None  # not a range at all by the grammar's own words
    if first >= size_bytes:
        raise errors.BadRange(size_bytes)
    return ByteRange(first, size_bytes if last is None else min(last + 1, size_bytes))


def _suffix(length: int, size_bytes: int) -> ByteRange | None:
    if not length:
        raise errors.BadRange(size_bytes)
    if not size_bytes:
        return None  # satisfiable, but Content-Range cannot spell an empty range
    return ByteRange(max(0, size_bytes - length), size_bytes)


def _position(text: str) -> int | None:
    """A number of any length: past 18 digits it lies beyond every file, whatever it is."""
    if not text:
        return None
    digits = text.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS


def range_applies(if_range: str | None, etag: str) -> bool:
    """Whether a range may be served, by strong comparison with `etag` (unquoted); section 13.1.5.

    A date never matches: what is served here has an entity tag and no date.
    """
    return if_range is None or if_range.strip() == f'"{etag}"'


def has_it_already(if_none_match: str | None, etag: str) -> bool:
    """Whether the caller holds this very state, by weak comparison; section 13.1.2."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or etag in _ENTITY_TAG.findall(if_none_match)

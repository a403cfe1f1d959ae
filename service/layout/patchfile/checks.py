"""Values of an index, hostile until they have been here."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import pairwise
from math import isfinite
from typing import Any, Final, TypeVar

from service.layout.codecs import EXPONENTS

_MAX_EXTENT: Final = 2**48
_MAX_DIMENSIONS: Final = 32
_MAX_NORM: Final = 3.5e38
_E = TypeVar("_E", bound=StrEnum)


class BadIndex(Exception):
    """What is wrong with the file."""


def rows(value: Any, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The tensors of a set of columns of equal length."""
    columns = json_dict(value, "list of tensors")
    lists = [column(columns, name) for name in names]
    if any(len(a) != len(b) for a, b in pairwise(lists)):
        raise BadIndex("the columns of its index differ in length")
    for values in zip(*lists, strict=True):
        yield dict(zip(names, values, strict=True))


def json_dict(value: Any, what: str) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise BadIndex(f"its {what} is not a JSON object")
    return value


def column(values: dict[str, Any], name: str) -> list[Any]:
    """A list, by its name."""
    found = values.get(name)
    if not isinstance(found, list):
        raise BadIndex(f"its index has no list {name!r}")
    return found


def text(value: Any, what: str) -> str:
    """Text that is not empty and can be written as UTF-8."""
    if not isinstance(value, str) or not value:
        raise BadIndex(f"its index has an empty {what} or one that is not text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair
        raise BadIndex(f"its index has a {what} that is not Unicode") from error
    return value


def file_path(files: list[Any], number: Any, name: str) -> str:
    """The path that a tensor's file number means."""
    where = natural(number, name, "file")
    if where >= len(files):
        raise BadIndex(f"tensor {name!r:.120} lies in file {where} of {len(files)}")
    return text(files[where], "file path")


def shape(value: Any, name: str) -> tuple[int, ...]:
    """Extents whose product is not absurd."""
    if not isinstance(value, list) or len(value) > _MAX_DIMENSIONS:
        raise BadIndex(f"tensor {name!r:.120} has no shape or too long a one")
    extents = tuple(natural(extent, name, "shape") for extent in value)
    total = 1
    for extent in extents:
        total *= extent
        if total > _MAX_EXTENT:
            raise BadIndex(f"tensor {name!r:.120} has an impossible shape")
    return extents


def natural(value: Any, name: str, what: str) -> int:
    """A number of things."""
    if type(value) is not int or not 0 <= value <= _MAX_EXTENT:  # bool is an int, too
        raise BadIndex(f"tensor {name!r:.120} has a bad {what}")
    return value


def exponent(value: Any, name: str) -> int:
    """A power of two that is a normal f32."""
    if type(value) is not int or value not in EXPONENTS:
        raise BadIndex(f"tensor {name!r:.120} has a bad exponent")
    return value


def norm(value: Any, name: str) -> float:
    """The length of a tensor of f32 values."""
    if type(value) not in {int, float} or not 0 <= value <= _MAX_NORM or not isfinite(value):
        raise BadIndex(f"tensor {name!r:.120} has a bad norm")
    return float(value)


def choice(kind: type[_E], value: Any, name: str) -> _E:
    """One of a few words."""
    try:
        return kind(value)
    except ValueError as error:
        raise BadIndex(f"tensor {name!r:.120} has the unknown value {value!r:.60}") from error

"""How a signature is packed; `patchfile` draws it, `tensors.codec` carries it out."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from math import prod
from typing import Final

LEVELS: Final = (-1.510, -0.4528, 0.4528, 1.510)
"""What the four codes of `q2` stand for: Max 1960, table I, four levels for a normal variable."""

EXPONENTS: Final = range(-126, 128)
"""A tensor's power of two is a normal f32."""


class Kind(StrEnum):
    """How a tensor moves."""

    ADDITIVE = "additive"
    LOG_RATIO = "log-ratio"


class Codec(StrEnum):
    """How a tensor's values are packed."""

    F32 = "f32"
    F16 = "f16"
    Q8 = "q8"
    Q4 = "q4"
    FIVE = "five"
    Q2 = "q2"  # read, and no more written

    @property
    def has_scales(self) -> bool:
        """Whether each row has a scale of its own."""
        return self not in {Codec.F32, Codec.F16}


_PER_BYTE: Final[Mapping[Codec, int]] = {
    Codec.Q8: 1,
    Codec.Q4: 2,
    Codec.FIVE: 3,
    Codec.Q2: 4,
}
"""How many codes share a byte."""


def codes_bytes(codec: Codec, shape: Sequence[int]) -> int:
    """How many bytes of codes a tensor takes, before they are deflated."""
    if not codec.has_scales:
        return 4 * prod(shape) if codec is Codec.F32 else 0
    return -(-prod(shape) // per_byte(codec))


def per_byte(codec: Codec) -> int:
    """How many codes of a codec with scales share a byte."""
    return _PER_BYTE[codec]


def halves_count(codec: Codec, shape: Sequence[int]) -> int:
    """How many values of `halves` a tensor takes; a codec with scales needs a first extent."""
    if codec.has_scales:
        return shape[0]
    return prod(shape) if codec is Codec.F16 else 0

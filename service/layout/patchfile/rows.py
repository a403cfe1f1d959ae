"""One tensor of an index, checked; and the index of version 2, which the package's docstring draws.

A tensor knows no offsets: those follow from all that come before it (`reading`).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from service.layout.codecs import Codec, Kind, codes_bytes
from service.layout.deflate import MAX_RATIO
from service.layout.patchfile import checks
from service.layout.patchfile.checks import BadIndex
from service.layout.patchfile.parts import PIN_BYTES, SEAL_BYTES

_NORMS: Final = struct.Struct("<2f")
_COLUMNS: Final = ("file", "name", "shape", "kind", "codec", "exponent", "deflated", "kernel")


@dataclass(frozen=True, slots=True)
class Row:
    """What an index says of one tensor; `file` is still as it came."""

    file: Any
    name: str
    shape: tuple[int, ...]
    kind: Kind
    codec: Codec
    exponent: int
    deflated: int
    norm: float | None
    weight_norm: float | None
    digest: str


def rows(index: dict[str, Any], tail: bytes) -> Iterator[Row]:
    """The tensors of an index, whose norms, pins and seal stand in `tail`; raises `BadIndex`."""
    found = list(checks.rows(index.get("tensors"), _COLUMNS))
    kernels = sum(_flag(row) for row in found)
    pins_at = kernels * _NORMS.size
    if len(tail) != pins_at + len(found) * PIN_BYTES + SEAL_BYTES:
        raise BadIndex("what stands behind the JSON of its index has not the length it must have")
    norms = _NORMS.iter_unpack(tail[:pins_at])
    for number, row in enumerate(found):
        pin = tail[pins_at + number * PIN_BYTES :][:PIN_BYTES]
        yield _row(row, next(norms) if _flag(row) else None, pin.hex())


def _flag(row: dict[str, Any]) -> int:
    value = row["kernel"]
    if type(value) is not int or value not in {0, 1}:
        raise BadIndex(f"tensor {row['name']!r:.120} is neither a kernel nor none")
    return value


def _row(row: dict[str, Any], norms: tuple[float, ...] | None, pin: str) -> Row:
    name = checks.text(row["name"], "name")
    shape = checks.shape(row["shape"], name)
    codec = checks.choice(Codec, row["codec"], name)
    deflated = checks.natural(row["deflated"], name, "length")
    whole = codes_bytes(codec, shape)
    if deflated and not deflated < whole <= MAX_RATIO * deflated:
        raise BadIndex(f"tensor {name!r:.120} cannot inflate from {deflated} to {whole} bytes")
    norm, weight_norm = (checks.norm(value, name) for value in norms) if norms else (None, None)
    return Row(
        file=row["file"],
        name=name,
        shape=shape,
        kind=checks.choice(Kind, row["kind"], name),
        codec=codec,
        exponent=checks.exponent(row["exponent"], name),
        deflated=deflated,
        norm=norm,
        weight_norm=weight_norm,
        digest=pin,
    )

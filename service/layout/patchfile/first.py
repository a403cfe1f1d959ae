"""The index of version 1 of the format: all of it in JSON, every digest in 64 hexadecimal digits.

    "tensors": {"file": [0, 0], "name": ["conv1.weight", "bn1.running_var"],
                "shape": [[16, 1, 3, 3], [16]], "kind": ["additive", "log-ratio"],
                "codec": ["q2", "f16"], "exponent": [-19, -12],
                "bytes":       [36, 0],         how many of `codes` are this tensor's
                "norm":        [0.0713, null],  ‖R‖ before it was packed; null beside a kernel
                "weight_norm": [1.42, null],    ‖W‖ of the clean kernel
                "sha256":      ["9f…", "04…"]}  of D: f32, little endian, row by row

The codecs are those of the drawing in the package's docstring without `five`; no stream is
deflated, and nothing stands behind the JSON's zlib stream. Written until November 2026.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from service.layout.codecs import Codec, Kind, codes_bytes
from service.layout.patchfile import checks
from service.layout.patchfile.checks import BadIndex
from service.layout.patchfile.rows import Row

_CODECS: Final = frozenset({Codec.F32, Codec.F16, Codec.Q8, Codec.Q4, Codec.Q2})
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_COLUMNS: Final = (
    *("file", "name", "shape", "kind", "codec", "exponent", "bytes"),
    *("norm", "weight_norm", "sha256"),
)


def rows(index: dict[str, Any], tail: bytes) -> Iterator[Row]:
    """The tensors of an index; raises `BadIndex`."""
    if tail:
        raise BadIndex("its index has bytes behind its end")
    for row in checks.rows(index.get("tensors"), _COLUMNS):
        yield _row(row)


def _row(row: dict[str, Any]) -> Row:
    name = checks.text(row["name"], "name")
    shape = checks.shape(row["shape"], name)
    codec = checks.choice(Codec, row["codec"], name)
    if codec not in _CODECS:
        raise BadIndex(f"tensor {name!r:.120} is of codec {codec}, which version 1 has not")
    if checks.natural(row["bytes"], name, "bytes") != codes_bytes(codec, shape):
        raise BadIndex(f"tensor {name!r:.120} takes another number of bytes than its shape says")
    if not isinstance(row["sha256"], str) or not _HEX.fullmatch(row["sha256"]):
        raise BadIndex(f"tensor {name!r:.120} has no sha256")
    return Row(
        file=row["file"],
        name=name,
        shape=shape,
        kind=checks.choice(Kind, row["kind"], name),
        codec=codec,
        exponent=checks.exponent(row["exponent"], name),
        deflated=0,
        norm=None if row["norm"] is None else checks.norm(row["norm"], name),
        weight_norm=None if row["weight_norm"] is None else checks.norm(row["weight_norm"], name),
        digest=row["sha256"],
    )

"""The patch file, `*.rws.safetensors`: a signature, compact, in a valid safetensors file.

    ┌─────────────────────────────┐
    │ safetensors header          │  __metadata__: {"format": "patchbay.rws", "version": "1"}
    ├─────────────────────────────┤
    │ halves   F16  [H]           │  channel scales and 16-bit values, tensor after tensor
    ├─────────────────────────────┤
    │ codes    U8   [C]           │  packed codes, tensor after tensor, each begins on a whole byte
    ├─────────────────────────────┤
    │ index    U8   [I]           │  one zlib stream (RFC 1950) of one JSON object, UTF-8
    └─────────────────────────────┘

    {"files": ["model.safetensors"],            weight files that the tensors lie in
     "tensors": {                               columns: one value a tensor, in order of the data
        "file":        [0, 0],                  which of `files`
        "name":        ["conv1.weight", "bn1.running_var"],
        "shape":       [[16, 1, 3, 3], [16]],
        "kind":        ["additive", "log-ratio"],
        "codec":       ["q2", "f16"],
        "exponent":    [-19, -12],              e, from -126 to 127
        "bytes":       [36, 0],                 how many of `codes` are this tensor's
        "norm":        [0.0713, null],          ‖R‖ before it was packed (f32); null beside a kernel
        "weight_norm": [1.42, null],            ‖W‖ of the clean kernel (f32)
        "sha256":      ["9f…", "04…"]},         of D: f32, little endian, row by row
     "parameters": {…}, "inputs": {…}, "summary": {…}}

What a tensor takes of `halves` and `codes` follows from its codec and its shape (n elements, c
rows: its first extent). D, the tensor that a build adds, is made from them in f32:

    codec  halves  codes            element i of D, in row r
    f32    -       4·n bytes        the little-endian f32 number i
    f16    n       -                half[i] · 2^e
    q8     c       n bytes          int8(byte i) · s[r]
    q4     c       ⌈n/2⌉ bytes      (nibble i - 8) · s[r]            low nibble first
    q2     c       ⌈n/4⌉ bytes      LEVELS[pair of bits i] · s[r]    lowest bits first

with the channel scale s[r] = half[r] · 2^e rounded to f32, and one f32 multiplication an element.
LEVELS are f32(-1.510), f32(-0.4528), f32(0.4528), f32(1.510), the quantizer of four levels for a
normal distribution (Max 1960, table I). Unused bits of a tensor's last byte are zero. A further
codec may take a number of bytes that does not follow from the shape: hence the column `bytes`.

Ordinary entries with their digests would cost more than a small patch's codes; so would offsets.
"""

import json
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from math import prod
from typing import Any, Final, TypeVar

from service import errors
from service.layout.codecs import EXPONENTS, Codec, Kind, codes_bytes, halves_count
from service.layout.header import Header, Read, compose, read_header
from service.layout.strict_json import BadJson, json_object
from service.names import ByteRange, Digest, TensorAddress

FORMAT: Final = "patchbay.rws"
VERSION: Final = "1"
METADATA: Final[Mapping[str, str]] = {"format": FORMAT, "version": VERSION}

MAX_INDEX_BYTES: Final = 16 * 2**20
"""The longest index, unpacked; some 100 000 tensors."""
MAX_TENSORS: Final = 100_000

_DTYPES = {"halves": "F16", "codes": "U8", "index": "U8"}
_HEX = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MAX_EXTENT = 2**48
_MAX_DIMENSIONS = 32
_MAX_NORM = 3.5e38
_E = TypeVar("_E", bound=StrEnum)
_COLUMNS = (
    *("file", "name", "shape", "kind", "codec", "exponent", "bytes"),
    *("norm", "weight_norm", "sha256"),
)


@dataclass(frozen=True, slots=True)
class SignatureTensor:
    """One tensor of a signature; `codes` and `halves` are where its bytes lie in the file.

    `digest` (64 hex digits) pins the f32 tensor that a build adds. `norm` and `weight_norm` are
    those of the unpacked signature and of the clean weight; None for what rides beside a kernel.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    kind: Kind
    codec: Codec
    exponent: int
    codes: ByteRange
    halves: ByteRange
    norm: float | None
    weight_norm: float | None
    digest: str

    @property
    def address(self) -> TensorAddress:
        """File path and tensor name on the model that it was extracted from."""
        return TensorAddress(self.path, self.name)

    @property
    def numel(self) -> int:
        """How many elements it has."""
        return prod(self.shape)


@dataclass(frozen=True)
class PatchFile:
    """A patch file whose index holds together; its codes have not been looked at."""

    tensors: tuple[SignatureTensor, ...]
    parameters: Mapping[str, Any]
    inputs: Mapping[str, Any]
    summary: Mapping[str, Any]
    header: Header

    @property
    def paths(self) -> tuple[str, ...]:
        """The weight files that it touches, on the model that it was extracted from."""
        return tuple(dict.fromkeys(tensor.path for tensor in self.tensors))

    @property
    def size_bytes(self) -> int:
        """The size of the file."""
        return self.header.file_size

    def input_digest(self, side: str) -> Digest | None:
        """Version digest of the `clean`, `robust` or `origin` model, where the file names one."""
        model = self.inputs.get(side)
        digest = str(model.get("digest")) if isinstance(model, dict) else ""
        return Digest(digest) if _DIGEST.fullmatch(digest) else None


# ── writing ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Packed:
    """One tensor as it goes into a file, its bytes apart."""

    address: TensorAddress
    shape: tuple[int, ...]
    kind: Kind
    codec: Codec
    exponent: int
    norm: float | None
    weight_norm: float | None
    digest: str


@dataclass(frozen=True, slots=True)
class Notes:
    """What an index says beside its tensors: JSON objects, as they come."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)


def compose_index(tensors: Sequence[Packed], notes: Notes) -> bytes:
    """Write the index of a patch file; equal input gives equal bytes."""
    files = sorted({tensor.address.path for tensor in tensors})
    columns = {
        "file": [files.index(tensor.address.path) for tensor in tensors],
        "name": [tensor.address.name for tensor in tensors],
        "shape": [list(tensor.shape) for tensor in tensors],
        "kind": [tensor.kind for tensor in tensors],
        "codec": [tensor.codec for tensor in tensors],
        "exponent": [tensor.exponent for tensor in tensors],
        "bytes": [codes_bytes(tensor.codec, tensor.shape) for tensor in tensors],
        "norm": [_short(tensor.norm) for tensor in tensors],
        "weight_norm": [_short(tensor.weight_norm) for tensor in tensors],
        "sha256": [tensor.digest for tensor in tensors],
    }
    value = {
        "files": files,
        "tensors": columns,
        "parameters": dict(notes.parameters),
        "inputs": dict(notes.inputs),
        "summary": dict(notes.summary),
    }
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return zlib.compress(text.encode("utf-8"), level=9)


def compose_header(tensors: Sequence[Packed], index_bytes: int) -> Header:
    """Lay out a patch file: after this header come the halves, the codes, the index."""
    halves = sum(halves_count(tensor.codec, tensor.shape) for tensor in tensors)
    codes = sum(codes_bytes(tensor.codec, tensor.shape) for tensor in tensors)
    sizes = {"halves": halves, "codes": codes, "index": index_bytes}
    return compose([(name, _DTYPES[name], (size,)) for name, size in sizes.items()], METADATA)


def _short(value: float | None) -> float | None:
    """The shortest decimal that names the same f32, so that norms cost few bytes."""
    if value is None:
        return None
    (single,) = struct.unpack("<f", struct.pack("<f", value))
    for digits in range(6, 9):
        short = float(f"{single:.{digits}g}")
        if struct.pack("<f", short) == struct.pack("<f", single):
            return short
    return float(f"{single:.9g}")


# ── reading ──────────────────────────────────────────────────────────────────────────────────


class _BadIndex(Exception):
    """What is wrong with the file."""


def read(read: Read, size_bytes: int) -> PatchFile:
    """Read header and index of a patch file of `size_bytes` bytes, with suspicion.

    Takes no more memory than a small multiple of `MAX_INDEX_BYTES`, whatever the file says.
    Raises `NotSafetensors`, `UnsupportedFormat` and `NotAPatchFile`.
    """
    header = read_header(read, size_bytes, "the patch file")
    try:
        _check_header(header)
        index = _index(read, header)
        tensors = tuple(_tensors(index, header))
        parameters, inputs, summary = (
            _object(index.get(key), key) for key in ("parameters", "inputs", "summary")
        )
    except _BadIndex as error:
        raise errors.NotAPatchFile(str(error)) from error
    return PatchFile(tensors, parameters, inputs, summary, header)


def _check_header(header: Header) -> None:
    form = header.metadata.get("format")
    if form != FORMAT:
        raise _BadIndex(f"its __metadata__ says format {form!r:.60}, not {FORMAT!r}")
    version = header.metadata.get("version")
    if version != VERSION:
        raise _BadIndex(f"it is of version {version!r:.60}; this release reads version {VERSION}")
    found = {tensor.name: tensor.dtype for tensor in header.tensors}
    if found != _DTYPES:
        raise _BadIndex(f"it must hold exactly the tensors {', '.join(_DTYPES)} of F16, U8, U8")
    if any(len(tensor.shape) != 1 for tensor in header.tensors):
        raise _BadIndex("its tensors must have one dimension each")


def _index(read: Read, header: Header) -> dict[str, Any]:
    entry = header.entry("index")
    if entry.size_bytes > MAX_INDEX_BYTES:
        raise _BadIndex(f"its index of {entry.size_bytes} bytes is over {MAX_INDEX_BYTES}")
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(read(entry.start, entry.end), MAX_INDEX_BYTES + 1)
    except zlib.error as error:
        raise _BadIndex(f"its index is not a zlib stream: {error}") from error
    if len(text) > MAX_INDEX_BYTES:
        raise _BadIndex(f"its index unpacks to more than {MAX_INDEX_BYTES} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise _BadIndex("its index is cut off or has bytes behind its end")
    if text.count(b"[") + text.count(b"{") > 2 * MAX_TENSORS:  # small lists take most memory
        raise _BadIndex(f"its index holds more than {MAX_TENSORS} tensors")
    if rb"\u0000" in text:  # Postgres keeps no such text, so the file could not be published
        raise _BadIndex("its index holds a NUL character")
    try:
        return json_object(text)
    except BadJson as error:
        raise _BadIndex(f"its index {error}") from error


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _BadIndex(f"its {what} is not a JSON object")
    return value


def _tensors(index: dict[str, Any], header: Header) -> Iterator[SignatureTensor]:
    files = _column(index, "files")
    columns = _object(index.get("tensors"), "list of tensors")
    rows = list(_rows(columns))
    codes_at, halves_at = header.entry("codes").start, header.entry("halves").start
    seen: set[TensorAddress] = set()
    for row in rows:
        tensor = _tensor(row, files, codes_at, halves_at)
        if tensor.address in seen:
            raise _BadIndex(f"its index repeats tensor {str(tensor.address)!r:.120}")
        seen.add(tensor.address)
        codes_at, halves_at = tensor.codes.end, tensor.halves.end
        yield tensor
    if not rows:
        raise _BadIndex("it holds no tensor")
    if (halves_at, codes_at) != (header.entry("halves").end, header.entry("codes").end):
        raise _BadIndex("its index does not account for all of its codes and halves")


def _rows(columns: dict[str, Any]) -> Iterator[dict[str, Any]]:
    lists = [_column(columns, name) for name in _COLUMNS]
    if any(len(a) != len(b) for a, b in pairwise(lists)):
        raise _BadIndex("the columns of its index differ in length")
    for values in zip(*lists, strict=True):
        yield dict(zip(_COLUMNS, values, strict=True))


def _column(values: dict[str, Any], name: str) -> list[Any]:
    column = values.get(name)
    if not isinstance(column, list):
        raise _BadIndex(f"its index has no list {name!r}")
    return column


def _tensor(row: dict[str, Any], files: list[Any], codes: int, halves: int) -> SignatureTensor:
    name = _text(row["name"], "name")
    shape = _shape(row["shape"], name)
    codec = _choice(Codec, row["codec"], name)
    codes_end = codes + _natural(row["bytes"], name, "bytes")
    if codec.has_scales and not shape:
        raise _BadIndex(f"tensor {name!r:.120} is a scalar, which {codec} cannot hold")
    if codes_end != codes + codes_bytes(codec, shape):
        raise _BadIndex(f"tensor {name!r:.120} takes another number of bytes than its shape says")
    if not isinstance(row["sha256"], str) or not _HEX.fullmatch(row["sha256"]):
        raise _BadIndex(f"tensor {name!r:.120} has no sha256")
    return SignatureTensor(
        path=_file(files, row["file"], name),
        name=name,
        shape=shape,
        kind=_choice(Kind, row["kind"], name),
        codec=codec,
        exponent=_exponent(row["exponent"], name),
        codes=ByteRange(codes, codes_end),
        halves=ByteRange(halves, halves + 2 * halves_count(codec, shape)),
        norm=_norm(row["norm"], name),
        weight_norm=_norm(row["weight_norm"], name),
        digest=row["sha256"],
    )


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise _BadIndex(f"its index has an empty {what} or one that is not text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair
        raise _BadIndex(f"its index has a {what} that is not Unicode") from error
    return value


def _file(files: list[Any], number: Any, name: str) -> str:
    where = _natural(number, name, "file")
    if where >= len(files):
        raise _BadIndex(f"tensor {name!r:.120} lies in file {where} of {len(files)}")
    return _text(files[where], "file path")


def _shape(value: Any, name: str) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > _MAX_DIMENSIONS:
        raise _BadIndex(f"tensor {name!r:.120} has no shape or too long a one")
    shape = tuple(_natural(extent, name, "shape") for extent in value)
    total = 1
    for extent in shape:
        total *= extent
        if total > _MAX_EXTENT:
            raise _BadIndex(f"tensor {name!r:.120} has an impossible shape")
    return shape


def _natural(value: Any, name: str, what: str) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_EXTENT:  # bool is an int, too
        raise _BadIndex(f"tensor {name!r:.120} has a bad {what}")
    return value


def _exponent(value: Any, name: str) -> int:
    if type(value) is not int or value not in EXPONENTS:
        raise _BadIndex(f"tensor {name!r:.120} has a bad exponent")
    return value


def _norm(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if type(value) not in {int, float} or not 0 <= value <= _MAX_NORM:
        raise _BadIndex(f"tensor {name!r:.120} has a bad norm")
    return float(value)


def _choice(kind: type[_E], value: Any, name: str) -> _E:
    try:
        return kind(value)
    except ValueError as error:
        raise _BadIndex(f"tensor {name!r:.120} has the unknown value {value!r:.60}") from error

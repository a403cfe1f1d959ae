"""The header of a safetensors file: read with suspicion, written as the library writes it.

    ┌──────────────┬──────────────────────────────────────────┬────────────────────────────────┐
    │ 8 bytes      │ N bytes                                  │ the rest                       │
    │ N, unsigned, │ JSON, UTF-8, begins with `{`, padded     │ the tensors' bytes, row by     │
    │ little       │ with spaces so that the data begins at a │ row, little endian, one after  │
    │ endian       │ multiple of 8                            │ the other                      │
    └──────────────┴──────────────────────────────────────────┴────────────────────────────────┘
    0              8                                  data_start = 8 + N                file_size

    {"__metadata__": {"key": "text", …},                           optional
     "layer1.weight": {"dtype": "F16", "shape": [64, 3, 3, 3],
                       "data_offsets": [0, 3456]}, …}              counted from data_start

Sorted by their offsets, the tensors must cover the data without a hole, an overlap or a rest.
The order in the JSON means nothing. Sub-byte dtypes are packed; a tensor fills whole bytes.

Source: github.com/huggingface/safetensors, README "Format", and the dtypes of release 0.8. Two
things are stricter here: a name may stand once, and a name must be encodable as UTF-8.
"""

import json
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Final

from service import errors
from service.layout.strict_json import BadJson, json_object, once_each, shown

DTYPES: Final[Mapping[str, int]] = {
    dtype: bits
    for bits, dtypes in (
        (4, "F4"),
        (6, "F6_E2M3 F6_E3M2"),
        (8, "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E5M2FNUZ F8_E4M3FNUZ"),
        (16, "U16 I16 F16 BF16"),
        (32, "U32 I32 F32"),
        (64, "U64 I64 F64 C64"),
    )
    for dtype in dtypes.split()
}
"""Bits an element, for every dtype of the format."""

MAX_HEADER_BYTES: Final = 100_000_000
"""The longest header that the safetensors library reads."""

METADATA: Final = "__metadata__"

_LENGTH_BYTES = 8
_FIRST_READ_BYTES = 64 * 1024
_MAX_NUMBER = 2**63 - 1

Read = Callable[[int, int], bytes]
"""`read(start, end)` gives exactly those bytes of a file."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file; `start` and `end` count bytes from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        """How many bytes it takes."""
        return self.end - self.start

    @property
    def numel(self) -> int:
        """How many elements it has."""
        return prod(self.shape)


@dataclass(frozen=True)
class Header:
    """A header that holds together; `tensors` in file order, `raw` as it stands in the file."""

    tensors: tuple[TensorEntry, ...]
    metadata: Mapping[str, str]
    raw: bytes
    file_size: int

    @property
    def data_start(self) -> int:
        """Where the tensors begin."""
        return len(self.raw)

    @cached_property
    def by_name(self) -> Mapping[str, TensorEntry]:
        """The tensors by name, in file order."""
        return {tensor.name: tensor for tensor in self.tensors}

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors' names in file order."""
        return tuple(self.by_name)

    def entry(self, name: str) -> TensorEntry:
        """The tensor called `name`; raises `ThingNotFound`."""
        found = self.by_name.get(name)
        if found is None:
            raise errors.ThingNotFound("tensor", name)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self.by_name


class _BadHeader(Exception):
    """What is wrong, before the file's name is known."""


# ── reading ──────────────────────────────────────────────────────────────────────────────────


def read_header(read: Read, file_size: int, file: str = "the file") -> Header:
    """Read the header of a file of `file_size` bytes, with two reads at most.

    Raises `NotSafetensors`, and `UnsupportedFormat` where the file is of another known format.
    """
    prefix = read(0, min(_FIRST_READ_BYTES, file_size))
    missing = _header_end(prefix, file_size, file) - len(prefix)
    if missing > 0:
        prefix += read(len(prefix), len(prefix) + missing)
    return parse(prefix, file_size, file)


def parse(raw_prefix: bytes, file_size: int, file: str = "the file") -> Header:
    """Read a header from the first bytes of a file; more bytes than the header are welcome.

    Raises `NotSafetensors`, and `UnsupportedFormat` where the file is of another known format.
    """
    end = _header_end(raw_prefix, file_size, file)
    if len(raw_prefix) < end:
        raise errors.NotSafetensors(f"its header of {end - _LENGTH_BYTES} bytes is cut off", file)
    raw = bytes(raw_prefix[:end])
    try:
        fields = json_object(raw[_LENGTH_BYTES:])
        metadata = _metadata(fields.pop(METADATA, {}))
        tensors = [_tensor(name, value, end) for name, value in fields.items()]
        tensors.sort(key=lambda tensor: (tensor.start, tensor.end, tensor.name))
        _check_cover(tensors, end, file_size)
    except BadJson as error:
        raise errors.NotSafetensors(f"its header {error}", file) from error
    except _BadHeader as error:
        raise errors.NotSafetensors(str(error), file) from error
    return Header(tuple(tensors), metadata, raw, file_size)


def _header_end(prefix: bytes, file_size: int, file: str) -> int:
    """Where the header ends, from the first bytes of the file."""
    sniff(prefix, file)
    if min(file_size, len(prefix)) < _LENGTH_BYTES:
        raise errors.NotSafetensors(f"{file_size} bytes are too few for a header", file)
    (length,) = struct.unpack_from("<Q", prefix)
    if length > MAX_HEADER_BYTES:
        raise errors.NotSafetensors(
            f"its first 8 bytes announce a header of {length} bytes, over the limit of "
            f"{MAX_HEADER_BYTES}",
            file,
        )
    if _LENGTH_BYTES + length > file_size:
        raise errors.NotSafetensors(
            f"it announces a header of {length} bytes but has {file_size} bytes in all", file
        )
    if prefix[_LENGTH_BYTES:][:1] not in {b"{", b""}:
        raise errors.NotSafetensors("its header does not begin with {", file)
    return _LENGTH_BYTES + int(length)


def _metadata(value: Any) -> dict[str, str]:
    if value is None:  # the library takes null for none
        return {}
    if not isinstance(value, dict):
        raise _BadHeader(f"its {METADATA} is not an object")
    for key, text in value.items():
        if not isinstance(text, str):
            raise _BadHeader(f"its {METADATA} holds {shown(key)}, which is not text")
        _check_text(key)
        _check_text(text)
    return value


def _tensor(name: str, value: Any, data_start: int) -> TensorEntry:
    _check_text(name)
    if not isinstance(value, dict):
        raise _BadHeader(f"tensor {shown(name)} is not described by an object")
    offsets = value.get("data_offsets")
    size_bytes = _size_bytes(name, value.get("dtype"), value.get("shape"))
    match offsets:
        case [start, end] if _natural(start) and _natural(end):
            pass
        case _:
            raise _BadHeader(f"tensor {shown(name)} has bad data_offsets {shown(offsets)}")
    if end - start != size_bytes:
        raise _BadHeader(
            f"tensor {shown(name)} takes {size_bytes} bytes by its shape and dtype, "
            f"but its data_offsets span {end - start}"
        )
    return TensorEntry(
        name, value["dtype"], tuple(value["shape"]), data_start + start, data_start + end
    )


def _size_bytes(name: str, dtype: Any, shape: Any) -> int:
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _BadHeader(f"tensor {shown(name)} has the unknown dtype {shown(dtype)}")
    if not isinstance(shape, list) or not all(map(_natural, shape)):
        raise _BadHeader(f"tensor {shown(name)} has the bad shape {shown(shape)}")
    bits = DTYPES[dtype]
    for extent in shape:
        # Checked at each step, as the library does: a later zero does not heal an overflow.
        bits *= extent
        if bits > _MAX_NUMBER:
            raise _BadHeader(f"tensor {shown(name)} has the impossible shape {shown(shape)}")
    if bits % 8:
        raise _BadHeader(f"tensor {shown(name)} of {dtype} does not fill whole bytes")
    return bits // 8


def _check_cover(tensors: list[TensorEntry], data_start: int, file_size: int) -> None:
    reached, before = data_start, "the header"
    for tensor in tensors:
        if tensor.start != reached:
            word = "overlaps" if tensor.start < reached else "leaves a hole behind"
            raise _BadHeader(f"tensor {shown(tensor.name)} {word} {before}")
        reached, before = tensor.end, f"tensor {shown(tensor.name)}"
    if reached != file_size:
        word = "is cut off" if reached > file_size else "has bytes that no tensor covers"
        raise _BadHeader(f"it {word}: its tensors end at byte {reached}, the file at {file_size}")


def _natural(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_NUMBER  # bool is an int, too


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair
        raise _BadHeader(f"its header holds {shown(text)}, which is not Unicode") from error


# ── other formats ────────────────────────────────────────────────────────────────────────────

_SAVE = "load it and write it with safetensors.torch.save_file"
_RENAME = "publish it under a name that ends in .pth, and it is converted to safetensors"
_MAGIC: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"PK\x03\x04", "a PyTorch checkpoint or another zip archive", _RENAME),
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", "an old PyTorch checkpoint (a pickle)", _RENAME),
    *((bytes([0x80, n]), "a Python pickle", _SAVE) for n in range(2, 6)),
    (b"GGUF", "a GGUF file", "upload the safetensors files that it was made from"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "load it and write it with safetensors.numpy.save_file"),
    (b"\x93NUMPY", "a NumPy array", "write it with safetensors.numpy.save_file"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run git lfs pull"),
)

# Bare protobuf: field 1, ir_version, a small number; then field 2 or 7, a text or the graph.
_ONNX = re.compile(rb"\x08[\x01-\x20][\x12\x3a]", re.DOTALL)


def sniff(prefix: bytes, file: str = "the file") -> None:
    """Raise `UnsupportedFormat` where the first bytes are those of another known format.

    Says nothing about bytes that may be safetensors: a header of 640 bytes begins as a pickle does.
    """
    if prefix[_LENGTH_BYTES:][:1] == b"{":
        return
    for magic, form, advice in _MAGIC:
        if prefix.startswith(magic):
            raise errors.UnsupportedFormat(file, form, advice)
    if _ONNX.match(prefix):
        raise errors.UnsupportedFormat(
            file, "an ONNX model", "export the model's weights as safetensors instead"
        )


# ── writing ──────────────────────────────────────────────────────────────────────────────────


def compose(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str] | None = None
) -> Header:
    """Lay out tensors, given as (name, dtype, shape), one after the other in the given order.

    Raises `NotSafetensors` where a name repeats, or a dtype or a shape is bad.
    """
    fields: list[tuple[str, object]] = [(METADATA, dict(metadata))] if metadata else []
    reached = 0
    try:
        for name, dtype, shape in tensors:
            end = reached + _size_bytes(name, dtype, list(shape))
            value = {"dtype": dtype, "shape": list(shape), "data_offsets": [reached, end]}
            fields.append((name, value))
            reached = end
        text = _json_text(once_each(fields))
    except BadJson as error:
        raise errors.NotSafetensors(f"its header {error}", "the file to write") from error
    except _BadHeader as error:
        raise errors.NotSafetensors(str(error), "the file to write") from error
    raw = struct.pack("<Q", len(text)) + text
    return parse(raw, len(raw) + reached, "the file to write")


def _json_text(fields: dict[str, object]) -> bytes:
    # ASCII with escapes, as Python writes it by default: the same names to every JSON reader.
    text = json.dumps(fields, separators=(",", ":")).encode("ascii")
    return text + b" " * (-len(text) % 8)

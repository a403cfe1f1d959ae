"""Reading a patch file with suspicion: header, index, and where each tensor's bytes lie."""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from service import errors
from service.layout.codecs import codes_bytes, halves_count
from service.layout.header import Header, Read, read_header
from service.layout.patchfile import checks, first, rows
from service.layout.patchfile.checks import BadIndex
from service.layout.patchfile.parts import (
    ENTRIES,
    FORMAT,
    SEAL_BYTES,
    PatchFile,
    SignatureTensor,
)
from service.layout.patchfile.rows import Row
from service.layout.strict_json import BadJson, json_object
from service.names import ByteRange, TensorAddress

MAX_INDEX_BYTES: Final = 16 * 2**20
"""The longest index, unpacked; some 100 000 tensors."""
MAX_TENSORS: Final = 100_000

_ROWS: Final[Mapping[str | None, Callable[[dict[str, Any], bytes], Iterator[Row]]]] = {
    "1": first.rows,
    "2": rows.rows,
}
"""By version of the format; a file of any version is read for ever."""


def read(read: Read, size_bytes: int) -> PatchFile:
    """Read header and index of a patch file of `size_bytes` bytes.

    Takes no more memory than a small multiple of `MAX_INDEX_BYTES`, whatever the file says.
    Raises `NotSafetensors`, `UnsupportedFormat` and `NotAPatchFile`.
    """
    header = read_header(read, size_bytes, "the patch file")
    try:
        version = _version(header)
        index, tail = _index(read, header)
        tensors = tuple(_tensors(index, _ROWS[version](index, tail), header))
        parameters, inputs, summary = (
            checks.json_dict(index.get(key), key) for key in ("parameters", "inputs", "summary")
        )
    except BadIndex as error:
        raise errors.NotAPatchFile(str(error)) from error
    seal = tail[-SEAL_BYTES:] or None
    return PatchFile(tensors, parameters, inputs, summary, header, seal)


def _version(header: Header) -> str | None:
    form = header.metadata.get("format")
    if form != FORMAT:
        raise BadIndex(f"its __metadata__ says format {form!r:.60}, not {FORMAT!r}")
    version = header.metadata.get("version")
    if version not in _ROWS:
        known = " and ".join(map(str, _ROWS))
        raise BadIndex(f"it is of version {version!r:.60}; this release reads {known}")
    found = {tensor.name: tensor.dtype for tensor in header.tensors}
    if found != ENTRIES:
        raise BadIndex(f"it must hold exactly the tensors {', '.join(ENTRIES)} of F16, U8, U8")
    if any(len(tensor.shape) != 1 for tensor in header.tensors):
        raise BadIndex("its tensors must have one dimension each")
    return version


def _index(read: Read, header: Header) -> tuple[dict[str, Any], bytes]:
    """The JSON object, and the bytes that stand behind its zlib stream."""
    entry = header.entry("index")
    if entry.size_bytes > MAX_INDEX_BYTES:
        raise BadIndex(f"its index of {entry.size_bytes} bytes is over {MAX_INDEX_BYTES}")
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(read(entry.start, entry.end), MAX_INDEX_BYTES + 1)
    except zlib.error as error:
        raise BadIndex(f"its index is not a zlib stream: {error}") from error
    if len(text) > MAX_INDEX_BYTES:
        raise BadIndex(f"its index unpacks to more than {MAX_INDEX_BYTES} bytes")
    if not unpacker.eof:
        raise BadIndex("its index is cut off")
    if text.count(b"[") + text.count(b"{") > 2 * MAX_TENSORS:  # small lists take most memory
        raise BadIndex(f"its index holds more than {MAX_TENSORS} tensors")
    if rb"\u0000" in text:  # Postgres keeps no such text, so the file could not be published
        raise BadIndex("its index holds a NUL character")
    try:
        return json_object(text), unpacker.unused_data
    except BadJson as error:
        raise BadIndex(f"its index {error}") from error


def _tensors(
    index: dict[str, Any], found: Iterable[Row], header: Header
) -> Iterator[SignatureTensor]:
    files = checks.column(index, "files")
    codes_at, halves_at = header.entry("codes").start, header.entry("halves").start
    seen: set[TensorAddress] = set()
    for row in found:
        tensor = _placed(row, files, codes_at, halves_at)
        if tensor.address in seen:
            raise BadIndex(f"its index repeats tensor {str(tensor.address)!r:.120}")
        seen.add(tensor.address)
        codes_at, halves_at = tensor.codes.end, tensor.halves.end
        yield tensor
    if not seen:
        raise BadIndex("it holds no tensor")
    if (halves_at, codes_at) != (header.entry("halves").end, header.entry("codes").end):
        raise BadIndex("its index does not account for all of its codes and halves")


def _placed(row: Row, files: list[Any], codes: int, halves: int) -> SignatureTensor:
    if row.codec.has_scales and not row.shape:
        raise BadIndex(f"tensor {row.name!r:.120} is a scalar, which {row.codec} cannot hold")
    stored = row.deflated or codes_bytes(row.codec, row.shape)
    return SignatureTensor(
        path=checks.file_path(files, row.file, row.name),
        name=row.name,
        shape=row.shape,
        kind=row.kind,
        codec=row.codec,
        exponent=row.exponent,
        codes=ByteRange(codes, codes + stored),
        halves=ByteRange(halves, halves + 2 * halves_count(row.codec, row.shape)),
        norm=row.norm,
        weight_norm=row.weight_norm,
        digest=row.digest,
        deflated=row.deflated,
    )

"""Writing header and index of a patch file; codes and halves are the writer's own."""

import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Sequence

from service.layout.codecs import halves_count
from service.layout.header import Header, compose
from service.layout.patchfile.parts import (
    ENTRIES,
    METADATA,
    PIN_BYTES,
    SEAL_BYTES,
    Notes,
    Packed,
)


def compose_index(tensors: Sequence[Packed], notes: Notes) -> bytes:
    """Write the index of a patch file up to its seal; equal input gives equal bytes."""
    files = sorted({tensor.address.path for tensor in tensors})
    kernels = [(t.norm, t.weight_norm) for t in tensors if t.norm is not None]
    columns = {
        "file": [files.index(tensor.address.path) for tensor in tensors],
        "name": [tensor.address.name for tensor in tensors],
        "shape": [list(tensor.shape) for tensor in tensors],
        "kind": [tensor.kind for tensor in tensors],
        "codec": [tensor.codec for tensor in tensors],
        "exponent": [tensor.exponent for tensor in tensors],
        "deflated": [tensor.deflated for tensor in tensors],
        "kernel": [int(tensor.norm is not None) for tensor in tensors],
    }
    value = {
        "files": files,
        "tensors": columns,
        "parameters": dict(notes.parameters),
        "inputs": dict(notes.inputs),
        "summary": dict(notes.summary),
    }
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    norms = b"".join(struct.pack("<2f", *pair) for pair in kernels)
    pins = b"".join(bytes.fromhex(tensor.digest)[:PIN_BYTES] for tensor in tensors)
    return zlib.compress(text.encode("utf-8"), level=9) + norms + pins


def compose_header(tensors: Sequence[Packed], index_bytes: int) -> Header:
    """Lay out a patch file: behind this header come the halves, the codes, the index, the seal.

    `index_bytes` is the length of the index without its seal.
    """
    halves = sum(halves_count(tensor.codec, tensor.shape) for tensor in tensors)
    codes = sum(tensor.stored_bytes for tensor in tensors)
    sizes = {"halves": halves, "codes": codes, "index": index_bytes + SEAL_BYTES}
    return compose([(name, ENTRIES[name], (size,)) for name, size in sizes.items()], METADATA)


def seal_of(before: bytes, digests: Iterable[str]) -> bytes:
    """The seal of a file: `before` is the sha256 of all bytes before it, as 32 bytes.

    `digests` are those of the tensors, in order, in hexadecimal digits.
    """
    return hashlib.sha256(before + b"".join(map(bytes.fromhex, digests))).digest()

"""The patch file, `*.rws.safetensors`: a signature, compact, in a valid safetensors file.

    ┌─────────────────────────────┐
    │ safetensors header          │  __metadata__: {"format": "patchbay.rws", "version": "2"}
    ├─────────────────────────────┤
    │ halves   F16  [H]           │  channel scales and 16-bit values, tensor after tensor
    ├─────────────────────────────┤
    │ codes    U8   [C]           │  packed codes, tensor after tensor, each begins on a whole byte
    ├─────────────────────────────┤
    │ index    U8   [I]           │  one zlib stream (RFC 1950) of one JSON object, UTF-8
    │                             │  and behind it, as they are, for T tensors with K kernels:
    │          norms  f32 [K, 2]  │    ‖R‖ before it was packed and ‖W‖ of the clean weight
    │          pins   [T, 8]      │    the first 8 bytes of sha256(D); D as f32, row by row
    │          seal   [32]        │    sha256 of: the sha256 of all bytes of the file up to here,
    │                             │    then the T whole sha256(D), 32 bytes each
    └─────────────────────────────┘

    {"files": ["model.safetensors"],            weight files that the tensors lie in
     "tensors": {                               columns: one value a tensor, in order of the data
        "file":     [0, 0],                     which of `files`
        "name":     ["conv1.weight", "bn1.running_var"],
        "shape":    [[16, 1, 3, 3], [16]],
        "kind":     ["additive", "log-ratio"],
        "codec":    ["five", "f16"],
        "exponent": [-19, -12],                 e, from -126 to 127
        "deflated": [0, 0],                     bytes of a DEFLATE stream; 0: there is none
        "kernel":   [1, 0]},                    1: its norms stand in `norms`
     "parameters": {…}, "inputs": {…}, "summary": {…}}

What a tensor takes of `halves` and `codes` follows from its codec and its shape (n elements, c
rows: its first extent). D, the tensor that a build adds, is made from them in f32:

    codec  halves  codes            element i of D, in row r
    f32    -       4·n bytes        the f32 number i
    f16    n       -                half[i] · 2^e
    q8     c       n bytes          int8(byte i) · s[r]
    q4     c       ⌈n/2⌉ bytes      (nibble i - 8) · s[r]            low nibble first
    five   c       ⌈n/3⌉ bytes      (digit i - 2) · s[r]             three digits to base 5 a byte
    q2     c       ⌈n/4⌉ bytes      LEVELS[pair of bits i] · s[r]    lowest bits first

with the channel scale s[r] = half[r] · 2^e rounded to f32, and one f32 multiplication an element.
Digit i of `five` is ⌊byte / 5^(i mod 3)⌋ mod 5 of byte ⌊i / 3⌋. LEVELS are f32(-1.510),
f32(-0.4528), f32(0.4528), f32(1.510), the quantizer of four levels for a normal distribution (Max
1960, table I); `q2` is read and no more written. What is unused of a last byte is zero.

Where `deflated` is not 0, so many bytes of `codes` stand for the tensor's: a raw DEFLATE stream
(RFC 1951) that inflates to exactly the bytes in the table, and is at most 8 times shorter than
they. Numbers are little-endian throughout.

Why this shape: a small patch has 20 to 40 KB of codes. Ordinary entries with their digests would
cost more, so would offsets; 64 hexadecimal digits a tensor were half of the index of version 1
(`first`), which is still read. Eight bytes find a decoder that is wrong about one tensor; the seal
holds all of them whole, and all the rest of the file: a norm, too, says how patches are balanced.
"""

from service.layout.patchfile.parts import (
    FORMAT,
    METADATA,
    SEAL_BYTES,
    Notes,
    Packed,
    PatchFile,
    SignatureTensor,
)
from service.layout.patchfile.reading import MAX_INDEX_BYTES, read
from service.layout.patchfile.writing import compose_header, compose_index, seal_of

__all__ = [
    "FORMAT",
    "MAX_INDEX_BYTES",
    "METADATA",
    "SEAL_BYTES",
    "Notes",
    "Packed",
    "PatchFile",
    "SignatureTensor",
    "compose_header",
    "compose_index",
    "read",
    "seal_of",
]

"""Entropy coding of packed codes: raw DEFLATE streams (RFC 1951) of Huffman codes alone.

A byte of packed codes holds several of them, so a whole number of bits a byte costs 1 to 6 %
above the entropy on real signatures. Matches, DEFLATE's other half, find nothing in such bytes
and cost time. Huffman codes make a byte no shorter than a bit: hence `MAX_RATIO`.
"""

import zlib
from typing import Final

MAX_RATIO: Final = 8
"""A stream is at most so many times shorter than what it inflates to, which bounds memory."""

_WINDOW: Final = -15
"""Raw: no header, no checksum; the digests of the decoded tensors are stronger."""
_MEMORY: Final = 9
_SAMPLE_BYTES: Final = 2**16
_LEAST_GAIN: Final = 1 / 50
"""Less is not worth inflating it."""


class BadStream(Exception):
    """What is wrong with a stream."""


def deflated(packed: bytes | memoryview) -> bytes | None:
    """The stream of `packed`, or None where it does not pay."""
    sample = packed[:_SAMPLE_BYTES]
    stream = _stream(sample)
    if len(stream) > len(sample) * (1 - _LEAST_GAIN):
        return None
    if len(sample) < len(packed):
        stream = _stream(packed)
    return stream if len(stream) <= len(packed) * (1 - _LEAST_GAIN) else None


def _stream(packed: bytes | memoryview) -> bytes:
    coder = zlib.compressobj(9, zlib.DEFLATED, _WINDOW, _MEMORY, zlib.Z_HUFFMAN_ONLY)
    return coder.compress(packed) + coder.flush()


def inflated(stream: bytes | memoryview, size_bytes: int) -> bytes:
    """The `size_bytes` bytes that `stream` stands for, and never more memory than they take.

    Raises `BadStream`.
    """
    unpacker = zlib.decompressobj(_WINDOW)
    try:
        packed = unpacker.decompress(stream, size_bytes)
        over = unpacker.decompress(unpacker.unconsumed_tail, 1)
    except zlib.error as error:
        raise BadStream(f"is not a DEFLATE stream: {error}") from error
    if over or len(packed) != size_bytes or not unpacker.eof or unpacker.unused_data:
        raise BadStream(f"does not inflate to {size_bytes} bytes")
    return packed

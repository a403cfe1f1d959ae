"""Write tensors as `safetensors.torch.save_file` writes them, byte for byte, piece by piece.

The library sorts by dtype, the widest first, and then by name; so do we, and a checkpoint that
somebody converted at home has the digest that it has here.
"""

from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

import numpy as np

from service import errors
from service.compute.ingest.reading import DTYPES, Bits, Checkpoint, Source
from service.layout.header import compose

PIECE_BYTES: Final = 8 * 2**20
"""How much of a tensor that does not lie in order is put in order at a time."""
METADATA: Final = {"format": "pt"}
"""What Hub clients look for."""

_RANK: Final = {name: rank for rank, name in enumerate(DTYPES.values())}


def write(
    checkpoint: Checkpoint,
    out: BinaryIO,
    file: str,
    limit_bytes: int,
    told: Callable[[float], None],
) -> None:
    """Write the tensors of a checkpoint into `out`, a whole safetensors file.

    Raises `BadCheckpoint`, and `ConversionOverLimit` before anything is written.
    """
    ordered = sorted(checkpoint.tensors, key=lambda source: (-_RANK[source.dtype], source.name))
    try:
        header = compose(((s.name, s.dtype, s.shape) for s in ordered), METADATA)
    except errors.NotSafetensors as error:
        raise errors.BadCheckpoint(file, error.reason) from error
    if header.file_size > limit_bytes:
        raise errors.ConversionOverLimit(file, f"{limit_bytes} bytes of safetensors")
    out.write(header.raw)
    done = header.data_start
    for source in ordered:
        for piece in pieces(_checked(source)):
            out.write(piece.data)
            done += piece.nbytes
            told(done / header.file_size)


def _checked(source: Source) -> Bits:
    bits = source.open()
    if bits.shape != source.shape:
        raise ValueError(f"tensor {source.name!r} has the shape {bits.shape}")
    return bits


def pieces(bits: Bits) -> Iterator[Bits]:
    """The elements row by row, in arrays that each lie in order and are of a bounded size."""
    if not bits.size:
        return
    if bits.flags.c_contiguous:
        flat, step = bits.reshape(-1), PIECE_BYTES // bits.itemsize
        for start in range(0, flat.size, step):
            yield flat[start : start + step]
        return
    rows = PIECE_BYTES // (bits.nbytes // len(bits))
    if not rows:
        for row in bits:
            yield from pieces(row)
        return
    for start in range(0, len(bits), rows):
        yield np.ascontiguousarray(bits[start : start + rows])

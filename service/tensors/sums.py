"""Sums in f64, the same on the CPU for any number of threads, within 1e-9 relative on CUDA.

torch splits a long sum over its threads, so its last bits depend on how many there are. It does
not split within a row where there are several rows, nor what is shorter than 32 768 elements:
hence rows of 1024, added up in chunks of 2^20 elements, and the chunks one after the other.

The CPU walks tiles of fewer than 32 768 elements: all that is made on the way stays in its cache,
and torch does not wake its threads for them. Waking them cost a factor of eight on two cores that
other processes kept busy. The sums do not depend on the size of the tiles.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

CHUNK: Final = 2**20
"""Elements that make one partial sum; fixed, since it decides the order of the sums."""

_ROW: Final = 1024
_CPU_TILE: Final = 31 * _ROW

Products = Callable[..., Sequence[Float64[Tensor, " n"]]]
"""From one tile of each tensor, widened to f64, to what is to be summed."""


def tile_of(device: torch.device) -> int:
    """How many elements are worked on at a time; whole rows, so it changes no sum."""
    return _CPU_TILE if device.type == "cpu" else CHUNK


def row_sums(values: Float[Tensor, "rows columns"]) -> Float[Tensor, " rows"]:
    """The sum of each row, in the dtype of the values."""
    while values.shape[1] > _ROW:
        whole = values.shape[1] // _ROW * _ROW
        heads = values[:, :whole].reshape(values.shape[0], -1, _ROW).sum(dim=2)
        rest = values[:, whole:]
        values = torch.cat([heads, rest], dim=1) if rest.shape[1] else heads
    return values.sum(dim=1)


def widen(values: Float[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """The same values in f64."""
    if values.dtype == torch.float16:  # by way of f32 it is exact, too, and three times as fast
        values = values.to(torch.float32)
    return values.to(torch.float64)


def tiles(*tensors: Float[Tensor, "*shape"]) -> Iterator[tuple[Float64[Tensor, " n"], ...]]:
    """Walk tensors of one shape side by side, widened to f64, no tile across a chunk's end."""
    for _, tile in _tiles(tensors):
        yield tile


def inner_products(products: Products, *tensors: Float[Tensor, "*shape"]) -> list[float]:
    """Sum what `products` makes of each tile; no sums at all for empty tensors."""
    chunks: list[list[list[Tensor]]] = []
    for opens_chunk, tile in _tiles(tensors):
        parts = [_rows(part) for part in products(*tile)]
        if opens_chunk:
            chunks.append([[] for _ in parts])
        for rows, part in zip(chunks[-1], parts, strict=True):
            rows.append(part)
    # Once for all: on CUDA each number that is fetched waits for the device.
    table = [
        torch.stack([row_sums(torch.cat(rows)[None])[0] for rows in chunk]) for chunk in chunks
    ]
    sums = [row.tolist() for row in (torch.stack(table) if table else ())]
    return [_in_order(column) for column in zip(*sums, strict=True)]


def _tiles(
    tensors: Sequence[Float[Tensor, "*shape"]],
) -> Iterator[tuple[bool, tuple[Float64[Tensor, " n"], ...]]]:
    flat = [tensor.reshape(-1) for tensor in tensors]
    count, step = flat[0].numel(), tile_of(flat[0].device)
    for chunk in range(0, count, CHUNK):
        end = min(chunk + CHUNK, count)
        for start in range(chunk, end, step):
            stop = min(start + step, end)
            yield start == chunk, tuple(widen(tensor[start:stop]) for tensor in flat)


def _rows(values: Float64[Tensor, " n"]) -> Float64[Tensor, " rows"]:
    """Sums of rows of 1024, and of the shorter row that is left."""
    whole = values.numel() // _ROW * _ROW
    heads = values[:whole].view(-1, _ROW).sum(dim=1)
    return heads if whole == values.numel() else torch.cat([heads, values[whole:].sum()[None]])


def _in_order(values: Sequence[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total

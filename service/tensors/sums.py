"""Sums in f64, the same on the CPU for any number of threads, within 1e-9 relative on CUDA.

torch splits a long sum over its threads, so its last bits depend on how many there are. It does
not split within a row where there are several rows, nor what is shorter than 32 768 elements:
hence rows of 1024, added up in chunks of 2^20 elements, and the chunks one after the other.

The CPU walks tiles of fewer than 32 768 elements: all that is made on the way stays in its cache,
and torch does not wake its threads for them. Waking them cost a factor of eight on two cores that
other processes kept busy. Where torch has one thread anyway, tiles are four times as large, which
halves what is lost between them. The sums do not depend on the size of the tiles.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

CHUNK: Final = 2**20
"""Elements that make one partial sum; fixed, since it decides the order of the sums."""

_ROW: Final = 1024
_UNSPLIT: Final = 32_768
"""What is shorter, torch leaves to one thread."""
_CPU_TILE: Final = 31 * _ROW
_LONE_TILE: Final = 124 * _ROW

Factors = Callable[..., Iterable[tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]]]
"""From one tile of each tensor, widened to f64, to pairs of which the inner products are wanted."""


def tile_of(device: torch.device) -> int:
    """How many elements are worked on at a time; whole rows, so it changes no sum."""
    return _CPU_TILE if device.type == "cpu" else CHUNK


def row_sums(values: Float[Tensor, "rows columns"]) -> Float[Tensor, " rows"]:
    """The sum of each row, in the dtype of the values."""
    if values.numel() < _UNSPLIT:
        return values.sum(dim=1)
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
    """Walk tensors of one shape side by side, widened to f64, no tile across a chunk's end.

    A tile is a copy that may be changed, in memory that the next tile takes over.
    """
    for _, tile in _tiles(tensors, tile_of(tensors[0].device)):
        yield tile


def pieces(*tensors: Float[Tensor, "*shape"]) -> Iterator[tuple[Float64[Tensor, " n"], ...]]:
    """Tiles of whatever size is quickest now, for what comes out the same for all sizes."""
    for _, tile in _tiles(tensors, _quickest(tensors[0].device)):
        yield tile


def inner_products(factors: Factors, *tensors: Float[Tensor, "*shape"]) -> list[float]:
    """The inner products of what `factors` makes of the tiles; none at all for empty tensors."""
    chunks: list[list[list[Tensor]]] = []
    with np.errstate(all="ignore"):  # what is not finite is the caller's to judge
        for opens_chunk, tile in _tiles(tensors, _quickest(tensors[0].device)):
            parts = [_rows(a, b) for a, b in factors(*tile)]
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


def _quickest(device: torch.device) -> int:
    """How many elements to take at a time: with one thread there is none to be woken."""
    if device.type == "cpu" and torch.get_num_threads() == 1:
        return _LONE_TILE
    return tile_of(device)


def _tiles(
    tensors: Sequence[Float[Tensor, "*shape"]], step: int
) -> Iterator[tuple[bool, tuple[Float64[Tensor, " n"], ...]]]:
    count = tensors[0].numel()
    wide = [_Widened(tensor.reshape(-1), min(step, count)) for tensor in tensors]
    for chunk in range(0, count, CHUNK):
        end = min(chunk + CHUNK, count)
        for start in range(chunk, end, step):
            stop = min(start + step, end)
            yield start == chunk, tuple(each.tile(start, stop) for each in wide)


class _Widened:
    """A tensor's tiles in f64, one after the other in one place.

    Memory that is asked for anew for each tile costs more than the arithmetic: it is given back to
    the system and has to be mapped again.
    """

    def __init__(self, flat: Float[Tensor, " n"], step: int) -> None:
        self._flat = flat
        self._wide = torch.empty(step, dtype=torch.float64, device=flat.device)
        # Halves by way of f32: exact, too, and three times as fast.
        by_way = step if flat.dtype in {torch.float16, torch.bfloat16} else 0
        self._between = torch.empty(by_way, dtype=torch.float32, device=flat.device)

    def tile(self, start: int, stop: int) -> Float64[Tensor, " n"]:
        """Elements `[start, stop)`."""
        part = self._flat[start:stop]
        if self._between.numel():
            part = self._between[: stop - start].copy_(part)
        return self._wide[: stop - start].copy_(part)


def _rows(a: Float64[Tensor, " n"], b: Float64[Tensor, " n"]) -> Float64[Tensor, " rows"]:
    """Inner products of rows of 1024, and of the shorter row that is left."""
    whole = a.numel() // _ROW * _ROW
    heads = _each(a[:whole].view(-1, _ROW), b[:whole].view(-1, _ROW))
    return (
        heads if whole == a.numel() else torch.cat([heads, _each(a[None, whole:], b[None, whole:])])
    )


def _each(
    a: Float64[Tensor, "rows columns"], b: Float64[Tensor, "rows columns"]
) -> Float64[Tensor, " rows"]:
    """The inner product of each row; on the CPU by numpy, which need not store the products.

    torch has it, too, but at eight times the cost, and for long rows on several threads.
    """
    if a.device.type != "cpu":
        return (a * b).sum(dim=1)
    return torch.from_numpy(np.vecdot(a.numpy(), b.numpy()))


def _in_order(values: Sequence[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total

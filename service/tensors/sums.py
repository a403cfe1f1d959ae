"""Sums in f64, the same on the CPU for any number of threads, within 1e-9 relative on CUDA.

torch splits a long sum over its threads, so its last bits depend on how many there are. It does
not split within a row where there are several rows, nor what is shorter than 32 768 elements:
hence rows of 1024, added up in chunks of 2^20 elements, and the chunks one after the other.

The CPU walks tiles of fewer than 32 768 elements where torch has several threads: it does not wake
them for those. Waking them cost a factor of eight on two cores that other processes kept busy.
Where torch has one thread, several of Python's do such work side by side, and wait for its lock at
every call: a tile is then 2^18 elements, which a core's cache does not hold. One thread alone would
be a quarter quicker with 2^15, two together are slower by a third (measured). The sums do not
depend on the size of the tiles.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

CHUNK: Final = 2**20
"""Elements that make one partial sum; fixed, since it decides the order of the sums."""

_ROW: Final = 1024
_UNSPLIT: Final = 32_768
"""What is shorter, torch leaves to one thread."""
_SHORT: Final = _UNSPLIT // 4
"""A few rows of fewer columns are shorter than that, too."""
_CPU_TILE: Final = 31 * _ROW
_LONE_TILE: Final = 256 * _ROW

HALVES: Final = frozenset({torch.float16, torch.bfloat16})

Wide = Any
"""A tile of some tensors in f64, `[tensors, n]`: numpy's array on the CPU, torch's elsewhere.

What is made of it is written with the operators that both have. A call of numpy's takes less of
Python's lock than one of torch's, for which several threads would wait longer than for the sums.
"""

Factors = Callable[[Wide], Iterable[tuple[Wide, Wide]]]
"""From a tile to pairs of which the inner products are wanted.

A pair of stacks asks for the inner product of each two that lie in the same place.
"""


def tile_of(device: torch.device) -> int:
    """How many elements are worked on at a time; whole rows, so it changes no sum."""
    return _CPU_TILE if device.type == "cpu" else CHUNK


def quickest(device: torch.device) -> int:
    """How many elements to take at a time, where that is no sum: torch alone may wake threads."""
    if device.type == "cpu" and torch.get_num_threads() == 1:
        return _LONE_TILE
    return tile_of(device)


def block_of(device: torch.device, columns: int) -> int:
    """How many elements of rows to work on at a time, so that `row_sums` sums them all alike."""
    return quickest(device) if columns < _SHORT else tile_of(device)


def row_sums(values: Float[Tensor, "rows columns"]) -> Float[Tensor, " rows"]:
    """The sum of each row, in the dtype of the values."""
    lone = values.device.type == "cpu" and torch.get_num_threads() == 1
    if values.numel() < _UNSPLIT or (lone and values.shape[1] < _SHORT):
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


def tiles(*tensors: Float[Tensor, "*shape"]) -> Iterator[Float64[Tensor, "tensors n"]]:
    """Walk tensors of one shape side by side, widened to f64, no tile across a chunk's end.

    A tile is a copy that may be changed, in memory that the next tile takes over.
    """
    for chunk in _chunks(tensors, tile_of(tensors[0].device)):
        yield from map(torch.as_tensor, chunk)


def pieces(*tensors: Float[Tensor, "*shape"]) -> Iterator[Wide]:
    """Tiles of whatever size is quickest now, for what comes out the same for all sizes."""
    for chunk in _chunks(tensors, quickest(tensors[0].device)):
        yield from chunk


def inner_products(factors: Factors, *tensors: Float[Tensor, "*shape"]) -> list[float]:
    """The inner products of what `factors` makes of the tiles; none at all for empty tensors."""
    table: list[Tensor] = []
    with np.errstate(all="ignore"):  # what is not finite is the caller's to judge
        for chunk in _chunks(tensors, quickest(tensors[0].device)):
            rows = [[_rows(a, b) for a, b in factors(tile)] for tile in chunk]
            columns = [torch.cat([torch.as_tensor(part) for part in row]) for row in rows]
            table.append(row_sums(torch.cat(columns, dim=1)))
    # Once for all: on CUDA each number that is fetched waits for the device.
    sums = torch.stack(table).tolist() if table else []
    return [_in_order(column) for column in zip(*sums, strict=True)]


def _chunks(tensors: Sequence[Float[Tensor, "*shape"]], step: int) -> Iterator[Iterator[Wide]]:
    """The tiles of each chunk."""
    count = tensors[0].numel()
    wide = torch.empty(
        (len(tensors), min(step, count)), dtype=torch.float64, device=tensors[0].device
    )
    flats = [tensor.reshape(-1) for tensor in tensors]
    for start in range(0, count, CHUNK):
        yield _widened([flat[start : start + CHUNK] for flat in flats], wide)


def _widened(
    chunk: Sequence[Float[Tensor, " n"]], wide: Float64[Tensor, "tensors step"]
) -> Iterator[Wide]:
    """The tiles of one chunk, one after the other in one place.

    Memory that is asked for anew for each tile costs more than the arithmetic: it is given back to
    the system and has to be mapped again. Halves go by way of f32: exact, too, and three times as
    fast.
    """
    single = [each.to(torch.float32) if each.dtype in HALVES else each for each in chunk]
    count, step = len(single[0]), wide.shape[1]
    if wide.device.type != "cpu":
        for start in range(0, count, step):
            tile = wide[:, : min(step, count - start)]
            for into, each in zip(tile, single, strict=True):
                into.copy_(each[start : start + step])
            yield tile
        return
    arrays = [each.numpy() for each in single]
    for start in range(0, count, step):
        part = wide.numpy()[:, : count - start]
        for row, array in zip(part, arrays, strict=True):
            row[:] = array[start : start + step]
        yield part


def _rows(a: Wide, b: Wide) -> Wide:
    """Inner products of rows of 1024, and of the shorter row that is left."""
    count = a.shape[-1]
    rows = count // _ROW
    whole = rows * _ROW
    stacks = [each.reshape(-1, count) for each in (a, b)]
    heads = _each(*(each[:, :whole].reshape(len(each), rows, _ROW) for each in stacks))
    if whole == count:
        return heads
    tails = _each(*(each[:, None, whole:] for each in stacks))
    if isinstance(heads, Tensor):
        return torch.cat([heads, tails], dim=1)
    return np.concatenate([heads, tails], axis=1)


def _each(a: Wide, b: Wide) -> Wide:
    """The inner product of each row; on the CPU by numpy, which need not store the products.

    torch has it, too, but at eight times the cost, and for long rows on several threads.
    """
    return (a * b).sum(dim=-1) if isinstance(a, Tensor) else np.vecdot(a, b)


def _in_order(values: Sequence[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total

"""Sums in f64, the same on the CPU for any number of threads, within 1e-9 relative on CUDA.

torch splits a long sum over its threads, so its last bits depend on how many there are. It does
not split what is shorter than 32 768 elements, nor within a row where there are several rows:
hence rows of 1024, again and again, and chunks of 2^20 elements that are combined in order.
"""

from collections.abc import Iterator
from typing import Final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

CHUNK: Final = 2**20
"""Elements that are widened to f64 at a time; fixed, since it decides the order of the sums."""

_ROW = 1024


def row_sums(values: Float64[Tensor, "rows columns"]) -> Float64[Tensor, " rows"]:
    """The sum of each row."""
    while values.shape[1] > _ROW:
        whole = values.shape[1] // _ROW * _ROW
        heads = values[:, :whole].reshape(values.shape[0], -1, _ROW).sum(dim=2)
        values = torch.cat([heads, values[:, whole:]], dim=1)
    return values.sum(dim=1)


def total(values: Float64[Tensor, " n"]) -> Float64[Tensor, ""]:
    """The sum of one chunk."""
    return row_sums(values[None])[0]


def chunks(*tensors: Float[Tensor, "*shape"]) -> Iterator[tuple[Float64[Tensor, " n"], ...]]:
    """Walk tensors of one shape side by side, `CHUNK` elements at a time, widened to f64."""
    flat = [tensor.reshape(-1) for tensor in tensors]
    for start in range(0, flat[0].numel(), CHUNK):
        yield tuple(tensor[start : start + CHUNK].to(torch.float64) for tensor in flat)


def combine(parts: list[list[Tensor]], count: int) -> list[float]:
    """Add up the `count` sums of each chunk in order; one transfer from the device for all."""
    sums = [0.0] * count
    if parts:
        for row in torch.stack([torch.stack(row) for row in parts]).tolist():
            sums = [a + b for a, b in zip(sums, row, strict=True)]
    return sums

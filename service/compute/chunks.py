"""Tensors read in chunks, by several threads at a time, into buffers that are used again.

A chunk has as many elements as one partial sum, `tensors.sums.CHUNK`. So what a walk over models
takes of memory is a few MiB for each thread, however large the models and their tensors are.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from service.compute.sources import ModelFiles, fill
from service.names import TensorAddress
from service.tensors import raw
from service.tensors.layers import Layer
from service.tensors.sums import CHUNK, HALVES


@dataclass(frozen=True, slots=True)
class Chunk:
    """The elements `[start, end)` of a tensor, flattened."""

    layer: Layer
    start: int
    end: int

    @property
    def numel(self) -> int:
        """How many elements it has."""
        return self.end - self.start


def chunks_of(layer: Layer) -> Iterator[Chunk]:
    """A tensor's chunks in order."""
    for start in range(0, layer.numel, CHUNK):
        yield Chunk(layer, start, min(start + CHUNK, layer.numel))


class ChunkReader(threading.local):
    """Reads chunks onto a device; each thread has buffers of its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def read(self, side: str, model: ModelFiles, where: TensorAddress, chunk: Chunk) -> Tensor:
        """A chunk of the tensor at `where`; it lasts until this thread reads the next of `side`.

        On the CPU halves are given as f32, which changes no value, since sums begin with that.
        """
        file = model.files[where.path]
        entry = file.header.entry(where.name)
        width = raw.DTYPES[entry.dtype].itemsize
        buffer = self._buffer(side, torch.uint8, chunk.numel * width)
        fill(buffer, file.read, entry.start + chunk.start * width)
        found = raw.view(buffer, entry.dtype, (chunk.numel,))
        if self._device.type == "cpu" and found.dtype in HALVES:
            return self._buffer(side, torch.float32, chunk.numel).copy_(found)
        return found.to(self._device)

    def _buffer(self, side: str, dtype: torch.dtype, count: int) -> Tensor:
        buffer = self._buffers.get((side, dtype))
        if buffer is None or buffer.numel() < count:
            buffer = self._buffers[side, dtype] = torch.empty(count, dtype=dtype)
        return buffer[:count]

"""Chunks of tensors against the tensors."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from service.compute.chunks import Chunk, ChunkReader, chunks_of
from service.names import TensorAddress
from service.tensors import sums
from service.tensors.layers import Layer, Role
from tests.pairs import CPU, one

PLACE = TensorAddress("model.safetensors", "odd.weight")
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def _layer(shape: tuple[int, ...], dtype: str = "F32") -> Layer:
    return Layer(PLACE, shape, dtype, Role.KERNEL)


def test_chunks_cover_a_tensor_and_end_where_sums_do() -> None:
    layer = _layer((3, sums.CHUNK - 5))

    chunks = list(chunks_of(layer))

    assert [chunk.start for chunk in chunks] == [0, sums.CHUNK, 2 * sums.CHUNK]
    assert [chunk.end for chunk in chunks[:-1]] == [chunk.start for chunk in chunks[1:]]
    assert sum(chunk.numel for chunk in chunks) == layer.numel
    assert list(chunks_of(_layer((0, 5)))) == []


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_chunk_holds_the_elements_of_its_tensor(dtype: str) -> None:
    tensor = torch.randn(40, 50).to(DTYPES[dtype])
    files = one({"a": torch.ones(3), "odd.weight": tensor})

    found = ChunkReader(CPU).read("clean", files, PLACE, Chunk(_layer((40, 50), dtype), 77, 1500))

    assert torch.equal(found, tensor.reshape(-1)[77:1500])


def test_each_thread_has_buffers_of_its_own() -> None:
    tensor = torch.arange(100_000, dtype=torch.float32).reshape(100, 1000)
    files, reader, layer = one({"odd.weight": tensor}), ChunkReader(CPU), _layer((100, 1000))

    def total(start: int) -> float:
        parts = [Chunk(layer, at, at + 100) for at in range(start, start + 10_000, 100)]
        return sum(float(reader.read("clean", files, PLACE, part).sum()) for part in parts)

    with ThreadPoolExecutor(4) as threads:
        totals = list(threads.map(total, range(0, 100_000, 10_000)))

    assert sum(totals) == pytest.approx(float(tensor.double().sum()))

"""One sum, whatever the threads."""

import math

import pytest
import torch

from service.tensors import sums


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, 40_000, sums.CHUNK])
def test_a_sum_is_right_and_the_same_for_any_number_of_threads(count: int) -> None:
    values = torch.randn(count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    one = float(sums.total(values))
    torch.set_num_threads(3)
    three = float(sums.total(values))

    assert one == three
    assert one == pytest.approx(math.fsum(values.tolist()), abs=1e-9)


@pytest.mark.parametrize("shape", [(1, 3_000_000), (5, 2047), (4000, 9), (3, 0)])
def test_rows_sum_alike_for_any_number_of_threads(shape: tuple[int, int]) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    one = sums.row_sums(values)
    torch.set_num_threads(3)
    three = sums.row_sums(values)

    assert torch.equal(one, three)
    assert torch.allclose(one, values.sum(1), atol=1e-8)


def test_chunks_walk_tensors_side_by_side() -> None:
    a, b = (torch.arange(sums.CHUNK + 3) % 7).half(), torch.ones(sums.CHUNK + 3)

    walked = list(sums.chunks(a, b))

    assert [len(part) for part, _ in walked] == [sums.CHUNK, 3]
    assert all(part.dtype == torch.float64 for pair in walked for part in pair)
    assert torch.equal(torch.cat([part for part, _ in walked]), a.double())

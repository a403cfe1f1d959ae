"""One sum, whatever the threads."""

import math

import pytest
import torch

from service.tensors import sums


@pytest.mark.parametrize("count", [1, 1023, 1024, 1025, 40_000, sums.CHUNK, 2 * sums.CHUNK + 7])
def test_a_sum_is_right_and_the_same_for_any_number_of_threads(count: int) -> None:
    values = torch.randn(count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    one = sums.inner_products(lambda v: [(v, v * 0 + 1), (v, v)], values)
    torch.set_num_threads(3)
    three = sums.inner_products(lambda v: [(v, v * 0 + 1), (v, v)], values)

    assert one == three
    assert one[0] == pytest.approx(math.fsum(values.tolist()), abs=1e-9)
    assert one[1] == pytest.approx(math.fsum((values * values).tolist()), rel=1e-13)


@pytest.mark.parametrize("tile", [1024, 7 * 1024, sums.CHUNK])
def test_a_sum_does_not_depend_on_the_tiles(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(2_500_000, generator=torch.Generator().manual_seed(3))
    usual = sums.inner_products(lambda v: [(v, v)], values)

    monkeypatch.setattr(sums, "_LONE_TILE", tile)

    assert sums.inner_products(lambda v: [(v, v)], values) == usual


def test_a_tile_may_be_changed_and_the_tensor_stays() -> None:
    values = torch.ones(5, dtype=torch.float64)

    for (tile,) in sums.tiles(values):
        tile.zero_()

    assert values.tolist() == [1.0] * 5


@pytest.mark.parametrize("count", [5, 1024, 300_000, sums.CHUNK + 1030])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_pair_of_stacks_gives_the_products_of_each_two(count: int, dtype: torch.dtype) -> None:
    a, b = torch.randn(2, count, generator=torch.Generator().manual_seed(4)).to(dtype)

    stacked = sums.inner_products(lambda tile: [(tile, tile), (tile[0], tile[1])], a, b)

    assert stacked == [
        *sums.inner_products(lambda tile: [(tile[0], tile[0])], a),
        *sums.inner_products(lambda tile: [(tile[0], tile[0])], b),
        *sums.inner_products(lambda tile: [(tile[0], tile[1])], a, b),
    ]


@pytest.mark.parametrize("shape", [(300, 777), (1200, 1024), (40_000, 33), (9, 8000)])
def test_blocks_for_one_thread_give_the_row_sums_of_blocks_for_many(shape: tuple[int, int]) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(5))

    def by_blocks() -> torch.Tensor:
        block = max(1, sums.block_of(values.device, shape[1]) // shape[1])
        return torch.cat([sums.row_sums(part) for part in torch.split(values, block)])

    torch.set_num_threads(3)
    many = by_blocks()
    torch.set_num_threads(1)

    assert torch.equal(by_blocks(), many)


def test_nothing_has_no_sums() -> None:
    assert sums.inner_products(lambda v: [(v, v)], torch.empty(0, 3)) == []


@pytest.mark.parametrize("shape", [(1, 3_000_000), (5, 2047), (4000, 9), (3, 0)])
def test_rows_sum_alike_for_any_number_of_threads(shape: tuple[int, int]) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    one = sums.row_sums(values)
    torch.set_num_threads(3)
    three = sums.row_sums(values)

    assert torch.equal(one, three)
    assert torch.allclose(one, values.sum(1), atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tiles_walk_tensors_side_by_side(dtype: torch.dtype) -> None:
    a = torch.arange(sums.CHUNK + 3).remainder(7).to(dtype)

    walked = [
        tuple(part.clone() for part in tile) for tile in sums.tiles(a, torch.ones(sums.CHUNK + 3))
    ]

    assert all(part.dtype == torch.float64 for pair in walked for part in pair)
    assert torch.equal(torch.cat([part for part, _ in walked]), a.double())
    assert len(walked[-1][0]) == 3


def test_half_precision_is_widened_whole() -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)

    assert torch.equal(sums.widen(every).nan_to_num(), every.double().nan_to_num())

"""Looking codes up in a table: the same as one row at a time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from service.tensors import gather


@pytest.mark.parametrize("each", [1, 2, 4, 5, 8])
@given(st.binary(max_size=200))
def test_rows_are_those_that_the_codes_name(each: int, content: bytes) -> None:
    table = torch.arange(256 * each, dtype=torch.int32).view(torch.float32).reshape(256, each)
    codes = torch.tensor(list(content), dtype=torch.uint8)

    found = gather.rows(table, codes)

    rows = [table[code] for code in content]
    expected = torch.cat(rows) if rows else torch.empty(0)
    assert torch.equal(found.view(torch.int32), expected.view(torch.int32))


def test_more_codes_than_a_tile_holds_are_looked_up() -> None:
    each = 5
    table = torch.rand(256, each)
    codes = torch.randint(0, 256, (100_001,), dtype=torch.uint8)

    found = gather.rows(table, codes)

    assert torch.equal(found.reshape(-1, each), table[codes.long()])


@pytest.mark.parametrize("each", [1, 3])
@given(st.binary(max_size=200))
def test_two_codes_at_a_time_are_looked_up_alike(each: int, content: bytes) -> None:
    table = torch.arange(256 * each, dtype=torch.int32).view(torch.float32).reshape(256, each)
    codes = torch.tensor(list(content + content), dtype=torch.uint8)

    found = gather.by_pairs(gather.pairs_of(table), codes)

    assert torch.equal(found.view(torch.int32), gather.rows(table, codes).view(torch.int32))

"""How a sweep is cut: by the number of recipes, by the bytes of their overlays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.registry.builds import Wanted
from service.worker.kinds import builds


def wanted(*sizes: int) -> list[Wanted]:
    return [Wanted((), size) for size in sizes]


def cut(every: list[Wanted]) -> list[list[int]]:
    return [[each.overlay_bytes for each in batch] for batch in builds._cut(every)]


def test_a_batch_holds_no_more_than_its_bytes_but_for_one_recipe_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(builds, "BATCH_BYTES", 10)

    assert cut(wanted(4, 6, 1, 25, 5, 5, 5)) == [[4, 6], [1], [25], [5, 5], [5]]


@given(st.lists(st.integers(0, 2 * builds.BATCH_BYTES), min_size=1, max_size=250))
def test_every_recipe_is_in_one_batch_in_its_order(sizes: list[int]) -> None:
    batches = cut(wanted(*sizes))

    assert [size for batch in batches for size in batch] == sizes
    assert all(0 < len(batch) <= builds.BATCH for batch in batches)
    assert all(len(batch) == 1 or sum(batch) <= builds.BATCH_BYTES for batch in batches)

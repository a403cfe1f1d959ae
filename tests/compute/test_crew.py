"""Work shared out over threads."""

import threading
import time

import pytest
import torch

from service.compute.crew import crew
from tests.pairs import CPU


@pytest.fixture
def _three_threads() -> None:
    torch.set_num_threads(3)


@pytest.mark.usefixtures("_three_threads")
def test_answers_come_in_the_order_of_the_parts_whoever_is_quicker() -> None:
    def work(part: int) -> int:
        time.sleep(0.01 * (part % 3))
        return part * part

    with crew(CPU) as hands:
        assert list(hands.map(work, range(20))) == [part * part for part in range(20)]


@pytest.mark.usefixtures("_three_threads")
def test_torch_has_one_thread_for_each_meanwhile_and_its_own_again_after() -> None:
    seen: set[tuple[str, int]] = set()
    together = threading.Barrier(3, timeout=10)

    def work(_: int) -> None:
        together.wait()
        torch.ones(100_000).sum()
        seen.add((threading.current_thread().name, torch.get_num_threads()))

    with crew(CPU) as hands:
        list(hands.map(work, range(3)))

    assert len(seen) == 3
    assert {threads for _, threads in seen} == {1}
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("_three_threads")
def test_parts_at_work_stay_within_the_budget_but_for_one_that_exceeds_it() -> None:
    lock, at_work, most = threading.Lock(), 0, 0

    def work(cost: int) -> int:
        nonlocal at_work, most
        with lock:
            at_work += cost
            most = max(most, at_work)
        time.sleep(0.005)
        with lock:
            at_work -= cost
        return cost

    costs = [3, 4, 5, 20, 1, 1, 9, 2]
    with crew(CPU) as hands:
        assert list(hands.map(work, costs, cost=lambda cost: cost, budget=10)) == costs

    assert most == 20


@pytest.mark.usefixtures("_three_threads")
def test_an_error_is_raised_where_its_answer_would_stand_and_ends_the_rest() -> None:
    begun: list[int] = []

    def work(part: int) -> int:
        begun.append(part)
        if part == 2:
            raise ValueError(part)
        return part

    taken: list[int] = []
    with crew(CPU) as hands, pytest.raises(ValueError, match="2"):
        taken.extend(hands.map(work, range(1000)))

    assert taken == [0, 1]
    assert len(begun) < 20
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("_three_threads")
@pytest.mark.parametrize("count", [0, 1, 5, 6, 100])
def test_shares_hold_everything_once_and_none_is_empty(count: int) -> None:
    with crew(CPU) as hands:
        shares = hands.shares(range(count))

    assert sorted(each for share in shares for each in share) == list(range(count))
    assert len(shares) == min(count, 6)
    assert all(shares)

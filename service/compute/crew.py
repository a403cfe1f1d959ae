"""Threads that share out work on tensors, and hand the answers back in order.

Each works on its own part with one thread of torch's: waking torch's threads for every small
operation costs more than it brings, and sums must not depend on how many there are.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, TypeVar

import torch

LARGEST: Final = 16
"""More threads would only wait for memory, and each holds buffers."""

_AHEAD: Final = 3
"""Parts given out for each thread, so that none waits for the next."""

_SHARES: Final = 2
"""For each thread, so that one that is held up does not hold up all."""

Part = TypeVar("Part")
Answer = TypeVar("Answer")


class Crew:
    """As many threads as torch was given; on CUDA two, one to read while the device works."""

    def __init__(self, threads: ThreadPoolExecutor, count: int) -> None:
        self._threads = threads
        self._count = count

    def shares(self, things: Sequence[Part]) -> list[Sequence[Part]]:
        """Things dealt out to be worked on side by side: a few shares for each thread, none empty.

        Where the work on one thing is short, handing it over costs as much.
        """
        count = min(len(things), _SHARES * self._count)
        return [things[number::count] for number in range(count)]

    def map(
        self,
        work: Callable[[Part], Answer],
        parts: Iterable[Part],
        *,
        cost: Callable[[Part], int] = lambda _: 0,
        budget: int = 1,
    ) -> Iterator[Answer]:
        """Answers in the order of the parts; raises what `work` raises.

        What the parts at work cost together, with the answers not yet taken, stays within `budget`,
        but for a part that alone costs more.
        """
        at_work: deque[tuple[Future[Answer], int]] = deque()
        spent = 0
        try:
            for part in parts:
                price = cost(part)
                while at_work and (len(at_work) >= _AHEAD * self._count or spent + price > budget):
                    yield at_work[0][0].result()
                    spent -= at_work.popleft()[1]
                at_work.append((self._threads.submit(work, part), price))
                spent += price
            while at_work:
                yield at_work[0][0].result()
                at_work.popleft()
        finally:
            for future, _ in at_work:
                future.cancel()


@contextmanager
def crew(device: torch.device) -> Iterator[Crew]:
    """Threads to work with, as many as torch uses now; torch itself uses one meanwhile."""
    before = torch.get_num_threads()
    count = min(before, LARGEST) if device.type == "cpu" else 2
    torch.set_num_threads(1)
    threads = ThreadPoolExecutor(count, thread_name_prefix="crew")
    try:
        yield Crew(threads, count)
    finally:
        threads.shutdown(cancel_futures=True)
        torch.set_num_threads(before)

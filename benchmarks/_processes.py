"""What a process costs, from Linux' /proc."""

import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_EVERY_S: Final = 0.02


def cpu_s(pids: Iterable[int]) -> float:
    """The CPU time of some processes with all their threads, of user and system, in seconds."""
    return sum(_cpu_ticks(pid) for pid in pids) / _TICKS


def _cpu_ticks(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:  # one of Postgres' that has ended
        return 0
    # Behind the name, which may hold blanks; user and system time, fields 14 and 15 of proc(5).
    fields = text.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def private_bytes(pids: Iterable[int]) -> int:
    """The private memory of some processes: `RssAnon`, so no mapped file pages."""
    return sum(_status_kib(pid, "RssAnon") for pid in pids) * 1024


def _status_kib(pid: int, field: str) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0
    for line in text.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0


class Watched:
    """The CPU time of some processes, and the growth of their private memory, during a block.

    Growth is over `idle_bytes`, by default what they hold as the block begins.
    """

    def __init__(self, pids: Iterable[int], *, idle_bytes: int | None = None) -> None:
        self.pids = list(pids)
        self.cpu_s = 0.0
        self.grown_bytes = 0
        self.idle_bytes = private_bytes(self.pids) if idle_bytes is None else idle_bytes

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._cpu_before = cpu_s(self.pids)
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self.cpu_s = cpu_s(self.pids) - self._cpu_before

    def _look(self) -> None:
        while not self._over.is_set():
            grown = private_bytes(self.pids) - self.idle_bytes
            self.grown_bytes = max(self.grown_bytes, grown)
            time.sleep(_EVERY_S)

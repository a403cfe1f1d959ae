"""Servers that an earlier, killed process left on a data directory: found and ended.

Only for the holder of the home's lock, who knows that no living `serve` uses them.
"""

import signal
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import structlog

from service import errors

log = structlog.stdlib.get_logger(__name__)

SHUTDOWN_S = 60.0
QUIT_S = 5.0


def end(data: Path) -> None:
    """End every process of a server on `data`, by a clean shutdown where one is possible.

    Afterwards a `postmaster.pid` that only names a dead, foreign or zombie process is removed:
    Postgres takes any process of that id for a server, and would not start.

    Raises `PartFailed` where a process does not end.
    """
    remaining = find(data)
    if remaining:
        log.warning("ending a left-over Postgres", processes=[p.pid for p in remaining])
    # The clean shutdown is asked of the first process alone; it ends the others.
    for number, wait_s in (
        (signal.SIGINT, SHUTDOWN_S),
        (signal.SIGQUIT, QUIT_S),
        (signal.SIGKILL, QUIT_S),
    ):
        if not remaining:
            break
        first = _postmaster(data, remaining)
        if number == signal.SIGINT and first is None:
            continue
        _signal([first] if first is not None and number == signal.SIGINT else remaining, number)
        remaining = _wait_for_none(data, wait_s)
    if remaining:
        ids = ", ".join(str(p.pid) for p in remaining)
        raise errors.PartFailed("Postgres", f"an earlier one on {data} does not end: process {ids}")
    (data / "postmaster.pid").unlink(missing_ok=True)


def find(data: Path) -> list[psutil.Process]:
    """The living processes of a server on `data`; each of them works in that directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.name().startswith("postgres")
                and process.status() != psutil.STATUS_ZOMBIE
                and process.cwd() == str(data.resolve())
            ):
                found.append(process)
        except psutil.Error:
            continue  # it has ended, or belongs to a user whose processes we may not see
    return found


def _postmaster(data: Path, among: list[psutil.Process]) -> psutil.Process | None:
    try:
        named = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None
    return next((process for process in among if process.pid == named), None)


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def _wait_for_none(data: Path, wait_s: float) -> list[psutil.Process]:
    ends = time.monotonic() + wait_s
    while (remaining := find(data)) and time.monotonic() < ends:
        time.sleep(0.05)
    return remaining

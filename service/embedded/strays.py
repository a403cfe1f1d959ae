"""Servers that an earlier, killed process left on a data directory: found and ended.

Only for the holder of the home's lock, who knows that no living `serve` uses them.
"""

import hashlib
import signal
import time
from pathlib import Path

import psutil
import structlog

from service import errors

log = structlog.stdlib.get_logger(__name__)

SHUTDOWN_S = 60.0
QUIT_S = 5.0


def title(data: Path) -> str:
    """The `cluster_name` of a server on `data`: it stands in the command line of its processes.

    They are known by it since a command line may be read by everyone: root in a container may not
    see in which directory another user's process works.
    """
    return f"patchbay-{hashlib.sha256(bytes(data)).hexdigest()[:16]}"


def end(data: Path) -> None:
    """End every process of a server on `data`, by a clean shutdown where one is possible.

    Raises `PartFailed` where a process does not end.
    """
    remaining = find(data)
    first = next((p for p in remaining if p.pid == _recorded(data)), None)
    if remaining:
        log.warning("ending a left-over Postgres", processes=[p.pid for p in remaining])
    if first is not None:  # it ends the others; without it nobody can write a clean end
        _signal([first], signal.SIGINT)
        remaining = _wait_for_none(data, SHUTDOWN_S)
    for number in (signal.SIGQUIT, signal.SIGKILL):
        if remaining:
            _signal(remaining, number)
            remaining = _wait_for_none(data, QUIT_S)
    if remaining:
        ids = ", ".join(str(p.pid) for p in remaining)
        raise errors.PartFailed("Postgres", f"an earlier one on {data} does not end: process {ids}")
    _clear_record(data)


def find(data: Path) -> list[psutil.Process]:
    """The living processes of a server that `EmbeddedPostgres` started on `data`."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            ours = str(data) in command or " ".join(command).startswith(f"postgres: {title(data)}:")
            if ours and _is_living_postgres(process):
                found.append(process)
        except psutil.Error:
            continue  # it has ended meanwhile
    return found


def _is_living_postgres(process: psutil.Process) -> bool:
    name: str = process.name()
    return name.startswith("postgres") and process.status() != psutil.STATUS_ZOMBIE


def _recorded(data: Path) -> int | None:
    try:
        return int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def _clear_record(data: Path) -> None:
    """Remove a `postmaster.pid` whose process is a zombie or no Postgres (an id used again).

    Postgres would take it for a running server. A record of no process at all is left to it: it
    checks whether the shared memory named there is still in use.
    """
    recorded = _recorded(data)
    try:
        if recorded is not None and not _is_living_postgres(psutil.Process(recorded)):
            (data / "postmaster.pid").unlink()
    except psutil.NoSuchProcess:
        return


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

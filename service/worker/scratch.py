"""Folders for what jobs write, removed even where their worker was killed.

FOLDER/patchbay-worker-XXXX/
├── lock           locked by the worker while it lives; the kernel lets go of it
└── job-XXXX/      one job's files
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PREFIX: Final = "patchbay-worker-"


@contextlib.contextmanager
def of_worker(folder: Path) -> Iterator[Path]:
    """A worker's own folder under `folder`; those of dead workers there are removed first."""
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    own = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
    try:
        with (own / "lock.new").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (own / "lock.new").rename(own / "lock")  # never seen unlocked while we live
            yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


@contextlib.contextmanager
def of_job(own: Path) -> Iterator[Path]:
    """An empty folder for one job."""
    made = Path(tempfile.mkdtemp(prefix="job-", dir=own))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _sweep(folder: Path) -> None:
    for left in folder.glob(f"{PREFIX}*"):
        # Not ours, just removed by another, or so new that its lock is not there yet.
        with contextlib.suppress(OSError):
            if left.lstat().st_uid == os.geteuid() and _is_dead(left):
                shutil.rmtree(left, ignore_errors=True)


def _is_dead(left: Path) -> bool:
    with (left / "lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

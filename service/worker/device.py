"""One device, one warm child process that holds torch, one job at a time.

    worker ── Setup, Work ──▶ child        over one socket pair, pickled
           ◀─ Ready, Progress, Done, Failed, Crashed ──

A job that is to stop is stopped by killing the child: nothing inside torch has to look for a flag.
The next job starts another one. The child dies with the worker (`child.py`).
"""

import contextlib
import signal
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, Final

from service import errors
from service.blobs.opening import open_store
from service.blobs.store import BlobStore
from service.worker.checked import Checked

CARRIER: Final = "service.compute.carry"
"""Module that carries jobs out; only the child imports it, for it imports torch."""

START_S: Final = 120.0
"""How long torch may take to load: a first import from a cold disk takes tens of seconds."""


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """How each process opens the blob store for itself."""

    url: str
    endpoint_url: str | None = None
    reserve_bytes: int | None = None

    def open(self) -> BlobStore:
        """Open the store; raises `BadStoreUrl` and `StoreUnavailable`."""
        return open_store(
            self.url, endpoint_url=self.endpoint_url, reserve_bytes=self.reserve_bytes
        )


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message to a child."""

    device: str
    store: StoreAddress
    carrier: str


@dataclass(frozen=True, slots=True)
class Work:
    """A job, and the empty folder for the files it makes."""

    job: Any
    scratch: Path


@dataclass(frozen=True, slots=True)
class Ready:
    """The child is set up; `device` is what `auto` came to."""

    device: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the job is, from 0 to 1."""

    fraction: float
    message: str


@dataclass(frozen=True, slots=True)
class Done:
    """What the job made."""

    made: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """The job, or the child's start, ended with an error of the tree."""

    error: errors.PatchbayError


@dataclass(frozen=True, slots=True)
class Crashed:
    """The job ended with an exception that nobody foresaw."""

    kind: str
    traceback: str


Event = Ready | Progress | Done | Failed | Crashed


class ProcessDied(Exception):
    """The child ended by itself in the middle of a job; the message says how."""


class DeviceProcess:
    """The child of one device; started when first needed, and again after a kill.

    Not for two threads at once. `device` is `cuda:N`, `cpu` or `auto`; `checked` is shared with the
    other devices of a worker.
    """

    def __init__(
        self,
        device: str,
        store: StoreAddress,
        *,
        carrier: str = CARRIER,
        checked: Checked | None = None,
    ) -> None:
        self.device = device
        self._store = store
        self._carrier = carrier
        self._checked = checked or Checked()
        self._job: Any = None
        self._running: tuple[subprocess.Popen[bytes], Connection] | None = None
        self._ready = False

    def start(self) -> str:
        """Start the child, wait until it is ready, and answer the device that it found.

        Raises `DeviceUnusable`, and `PartFailed` where the child does not come up.
        """
        self.kill()
        self._spawn()
        try:
            event = self.next_event(START_S)
        except ProcessDied as died:
            raise errors.PartFailed("the device process", str(died)) from died
        match event:
            case Ready(device):
                self.device = device
                return device
            case Failed(error):
                raise error
            case _:
                self.kill()
                raise errors.PartFailed("the device process", f"not ready within {START_S:.0f} s")

    def give(self, job: Any, scratch: Path) -> None:
        """Hand over a job; raises `ProcessDied`."""
        if self._running is not None and self._running[0].poll() is not None:
            self.kill()  # it ended between two jobs, which is no job's fault
        if self._running is None:
            self._spawn()
        self._job = self._checked.marked(self.device, job)
        self._send(Work(self._job, scratch))

    def next_event(self, timeout_s: float) -> Event | None:
        """What the child says next, None if nothing in time; raises `ProcessDied`."""
        _, pipe = self._parts()
        try:
            if not pipe.poll(timeout_s):
                return None
            event: Event = pipe.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        self._ready = self._ready or isinstance(event, Ready)
        if isinstance(event, Done):
            self._checked.note(self.device, self._job, event.made)
        # After a fault on a GPU, nothing in that process works any more.
        if isinstance(event, Crashed) or not self._ready:
            self.kill()
        return event

    def kill(self) -> None:
        """End the child now, whatever it does; without one, do nothing."""
        running, self._running = self._running, None
        if running is None:
            return
        process, pipe = running
        pipe.close()
        process.kill()
        process.wait()

    def _spawn(self) -> None:
        ours, theirs = Pipe()
        try:
            process = subprocess.Popen(  # noqa: S603 - a module of ours
                # -P: no module in the working directory may stand in for one of ours.
                [sys.executable, "-P", "-m", "service.worker.child", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the worker's alone
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()  # else the end of the child would not end the pipe
        self._running = process, ours
        self._ready = False
        self._send(Setup(self.device, self._store, self._carrier))

    def _send(self, message: Setup | Work) -> None:
        _, pipe = self._parts()
        try:
            pipe.send(message)
        except OSError as error:
            raise self._died() from error

    def _parts(self) -> tuple[subprocess.Popen[bytes], Connection]:
        if self._running is None:
            raise ProcessDied("the device process is not running")
        return self._running

    def _died(self) -> ProcessDied:
        process, _ = self._parts()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1.0)  # its end of the pipe closes a moment before it ends
        status = process.poll()
        self.kill()
        return ProcessDied(f"the device process {_how(status)}")


def _how(status: int | None) -> str:
    match status:
        case None:
            return "closed its pipe"
        case _ if status == -signal.SIGKILL:
            return "was killed by SIGKILL, as the kernel does when memory runs out"
        case _ if status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        case _:
            return f"ended with status {status}"

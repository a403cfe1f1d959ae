"""The device process: the only part of a worker that holds torch.

    python -P -m service.worker.child DESCRIPTOR

It ends with the worker, however that ends: by the end of the pipe, which a thread watches while a
job runs, and on Linux by the kernel, should a long call hold the interpreter's lock.
"""

import contextlib
import ctypes
import errno
import importlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Protocol, cast

from service import errors
from service.blobs.store import BlobStore
from service.layout.disk import RangeReader
from service.names import Digest
from service.worker.device import Crashed, Done, Event, Failed, Progress, Ready, Setup, Work

REPORT_EVERY_S: Final = 0.1
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h

Read = Callable[[int, int], bytes]


class Carrier(Protocol):
    """What the module that carries jobs out has to offer."""

    def open_device(self, wanted: str) -> tuple[Any, str]:
        """Get the device ready: itself and its name; raises `DeviceUnusable`."""

    def carry_out(
        self,
        job: Any,
        open_read: Callable[[Digest], Read],
        scratch: Path,
        device: Any,
        progress: Callable[[float, str], None],
    ) -> Any:
        """Carry out a job and answer what it made."""


class Voice:
    """Sends events to the worker, progress only now and then."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._told_at = 0.0

    def say(self, event: Event) -> None:
        """Send an event."""
        with self._lock:
            self._pipe.send(event)

    def progress(self, fraction: float, message: str) -> None:
        """Send progress, unless some was sent a moment ago."""
        now = time.monotonic()
        if now - self._told_at >= REPORT_EVERY_S:
            self._told_at = now
            self.say(Progress(fraction, message))


def main(descriptor: int) -> None:
    """Set up, then carry out jobs for ever; the end comes from outside."""
    _die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to whole groups; the worker decides
        signal.signal(number, signal.SIG_IGN)
    pipe = Connection(descriptor)
    voice = Voice(pipe)
    setup: Setup = pipe.recv()
    jobs: queue.SimpleQueue[Work] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, jobs), daemon=True).start()
    try:
        carrier = cast("Carrier", importlib.import_module(setup.carrier))
        device, name = carrier.open_device(setup.device)
        store = setup.store.open()
    except errors.PatchbayError as error:
        voice.say(Failed(error))
        return
    voice.say(Ready(name))
    while True:
        work = jobs.get()
        voice.say(_carried_out(carrier, work, store, device, voice))


def _carried_out(
    carrier: Carrier, work: Work, store: BlobStore, device: Any, voice: Voice
) -> Done | Failed | Crashed:
    with contextlib.ExitStack() as opened:

        def open_read(digest: Digest) -> Read:
            blob = opened.enter_context(store.open(digest))
            return RangeReader(blob.read, blob.fileno)

        try:
            made = carrier.carry_out(work.job, open_read, work.scratch, device, voice.progress)
        except errors.PatchbayError as error:
            return Failed(error)
        except OSError as error:
            if error.errno in FULL:
                reason = "the worker's disk is full; free some of it, then ask again"
                return Failed(errors.OperationFailed(reason))
            return Crashed(type(error).__name__, traceback.format_exc())
        except Exception as error:  # noqa: BLE001 - the worker logs it and ends the operation
            return Crashed(type(error).__name__, traceback.format_exc())
        return Done(made)


def _listen(pipe: Connection, jobs: "queue.SimpleQueue[Work]") -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            jobs.put(pipe.recv())
    os._exit(0)  # the worker is gone: whatever runs here is in vain


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]))

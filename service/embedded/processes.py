"""Child processes: started so that they end with us, watched, started again, ended in order.

with ending_on_signals(), Children() as children:
    database = children.add("postgres", lambda: EmbeddedPostgres.start(home))
    children.add("worker", lambda: Child.start([sys.executable, …], environment))
    uvicorn.run(…)              # returns or raises: then the worker ends, then the database
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Protocol, Self, TypeVar

import structlog

from service import errors
from service.embedded import leash
from service.embedded.accounts import Account

log = structlog.stdlib.get_logger(__name__)

STOP_S = 5.0  # from SIGTERM to SIGKILL
RESTART_WAIT_S = 5.0  # for a restart that is under way when we end; a recovery may take long
LOOK_EVERY_S = 0.2
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0  # also: after a run of this length the pauses begin anew
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def launch(
    command: list[str],
    environment: Mapping[str, str],
    *,
    account: Account | None = None,
    dies_by: signal.Signals = signal.SIGTERM,
    output: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` (a full path first) in a session of its own, so that Ctrl-C is ours alone.

    On Linux the kernel sends it `dies_by` when the calling *thread* ends: call from one that stays.
    """
    account = account or Account(os.geteuid(), os.getegid())
    leashed = [sys.executable, "-I", "-S", str(Path(leash.__file__).absolute())]
    leashed += [str(n) for n in (os.getpid(), int(dies_by), account.user, account.group)]
    return subprocess.Popen(  # noqa: S603 - callers hand in fixed programs
        [*leashed, *command],
        env=dict(environment),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


class Part(Protocol):
    """Something that runs beside us: a `Child`, or the embedded Postgres."""

    def poll(self) -> int | None:
        """Its exit status, or None while it runs."""

    def stop(self) -> None:
        """End it within seconds; harmless where it has ended."""


PartT = TypeVar("PartT", bound=Part)


class Child:
    """A child process together with whatever it starts: they end together."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    @classmethod
    def start(cls, command: list[str], environment: Mapping[str, str]) -> Self:
        """Start `command` (a full path first) with exactly this environment."""
        return cls(launch(command, environment))

    def poll(self) -> int | None:
        """Its exit status, or None while it runs; what it left behind is ended."""
        status = self.process.poll()
        if status is not None:
            self._kill_group()
        return status

    def stop(self) -> None:
        """Ask it to end (SIGTERM), and after five seconds end it."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_S)
        self._kill_group()
        self.process.wait()

    def _kill_group(self) -> None:
        # The group outlives its leader while a member lives; without one there is no such group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


@dataclass
class _Watched:
    name: str
    start: Callable[[], Part]
    part: Part
    started: float
    pause_s: float = FIRST_PAUSE_S
    due: float | None = None  # when it is started again; None while it runs


class Children:
    """Parts that run until `close`: a part that ends is started again, after growing pauses."""

    def __init__(self) -> None:
        self._watched: list[_Watched] = []
        self._closing = threading.Event()
        # A thread for all restarts, alive until the last part has ended: see `launch`.
        self._thread = threading.Thread(target=self._watch, name="children", daemon=True)

    def add(self, name: str, start: Callable[[], PartT]) -> PartT:
        """Start a part and keep it running; it is ended before those added earlier.

        `start` is called again, in another thread, whenever the part has ended. Raises what its
        first call raises. Call from the main thread.
        """
        part = start()
        self._watched.append(_Watched(name, start, part, started=time.monotonic()))
        log.info("started", part=name)
        if not self._thread.is_alive():
            self._thread.start()
        return part

    def close(self) -> None:
        """End every part, the last added first; a further Ctrl-C does not cut this short."""
        self._closing.set()
        with _deaf():
            if self._thread.is_alive():
                self._thread.join(RESTART_WAIT_S)
            for watched in reversed(self._watched):
                watched.part.stop()
                log.info("stopped", part=watched.name)
            self._watched.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _watch(self) -> None:
        while not self._closing.wait(LOOK_EVERY_S):
            for watched in list(self._watched):
                if watched.due is None:
                    _notice_end(watched)
                elif time.monotonic() >= watched.due and not self._closing.is_set():
                    _start_again(watched)
                    if self._closing.is_set():
                        watched.part.stop()  # `close` may have given up waiting for it


def _notice_end(watched: _Watched) -> None:
    status = watched.part.poll()
    if status is None:
        return
    now = time.monotonic()
    if now - watched.started > LONGEST_PAUSE_S:
        watched.pause_s = FIRST_PAUSE_S
    watched.due = now + watched.pause_s
    log.error("ended by itself", part=watched.name, status=status, again_in_s=watched.pause_s)
    watched.pause_s = min(2 * watched.pause_s, LONGEST_PAUSE_S)


def _start_again(watched: _Watched) -> None:
    try:
        watched.part = watched.start()
    except (errors.PatchbayError, OSError) as error:
        watched.due = time.monotonic() + watched.pause_s
        log.error(  # noqa: TRY400 - the message says it all
            "did not start", part=watched.name, reason=str(error), again_in_s=watched.pause_s
        )
        watched.pause_s = min(2 * watched.pause_s, LONGEST_PAUSE_S)
        return
    watched.started = time.monotonic()
    watched.due = None
    log.info("started again", part=watched.name)


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """Within it SIGINT, SIGTERM and SIGHUP raise `SystemExit`, once, so that `with` blocks unwind.

    For the main thread. Python's own answer to the latter two is to die on the spot, and uvicorn,
    which catches them while it serves, raises them again when it has finished.
    """
    former = {number: signal.signal(number, _end) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in former.items():
            if signal.getsignal(number) is _end:  # else we are ending: stay deaf to the last
                signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> None:
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Ignore the ending signals meanwhile; only the main thread can, and only it hears them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)

"""One attempt at an operation, from its begin to the one write that ends it.

No transaction is open while the device works or bytes travel. Blob first, row second: files are in
the store before the result is recorded, and the record is refused where another attempt has begun.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from enum import Enum
from pathlib import Path
from typing import Any, Final, NoReturn

from sqlalchemy import exc
from sqlalchemy.orm import Session, sessionmaker

from service import errors, observability
from service.blobs.store import BlobStore
from service.compute.jobs import Batches, BatchesMade, MadeFile
from service.db.tables.operations import Operation
from service.names import Digest
from service.registry import audits, operations
from service.worker.device import Crashed, DeviceProcess, Done, Failed, ProcessDied, Progress
from service.worker.kinds.kind import Hands, Kind, Made

LOOK_EVERY_S: Final = 0.2
REPORT_EVERY_S: Final = 0.5
"""Also how long a cancellation may go unseen."""
PATIENCE_S: Final = 60.0
"""How long a finished job waits for a lost database or store before its work is thrown away."""
AGAIN_AFTER_S: Final = 1.0
KEEPERS: Final = 4
"""So many files are stored at once."""
COMPUTING: Final = 0.95
"""The share of the progress that is told before the files go to the store."""

RETRIED: Final = (errors.Unavailable, ProcessDied)
"""What may pass by itself: the operation is begun again, up to `MAX_ATTEMPTS` times in all. All
else fails it at once; so does a full disk, since it takes somebody to free some room."""
DATABASE_LOST: Final = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)
OUT_OF_MEMORY: Final = frozenset({"MemoryError", "OutOfMemoryError"})

log = observability.logger(__name__)


class Ending(Enum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    GIVEN_BACK = "given back"
    TO_REPEAT = "to repeat"


class Cancelled(Exception):
    """Somebody cancelled the operation."""


class ShuttingDown(Exception):
    """The worker is to end."""


class Unforeseen(Exception):
    """The job ended with an exception that is not of the tree; the message is for its user."""


class Attempt:
    """An attempt that was begun; `operation` carries its number, the fencing token."""

    def __init__(
        self,
        *,
        sessions: sessionmaker[Session],
        store: BlobStore,
        device: DeviceProcess | None,
        operation: Operation,
        shutting_down: Callable[[], bool],
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._device = device
        self._id = operation.id
        self._kind = operation.kind
        self._number = operation.attempt
        self._shutting_down = shutting_down
        self._progress = Progress(0.0, operation.message)
        self._reported_at = 0.0

    def run(self, kind: Kind | None, folder: Path) -> Ending:
        """See the attempt through; `folder` is empty, for the files that are made.

        Raises what SQLAlchemy raises where the database stays away.
        """
        try:
            try:
                self._carry_out(kind, folder)
            except Exception as error:  # noqa: BLE001 - an operation must not stay open
                return self._end(error)
        except errors.AttemptSuperseded:
            return Ending.SUPERSEDED
        return Ending.SUCCEEDED

    def _carry_out(self, kind: Kind | None, folder: Path) -> None:
        if kind is None:
            reason = f"this worker knows no operation of kind {self._kind!r}; update it"
            raise errors.OperationFailed(reason)
        with self._sessions.begin() as session:
            job = kind.prepare(session, operations.find(session, self._id))
        made: Made
        if kind.carry is not None:
            made = kind.carry(job, Hands(self._store, self._sessions, self._told))
            self._keep(made.files)
        elif isinstance(job, Batches):
            made = BatchesMade(self._compute(job.jobs, folder, self._device))
        else:
            [made] = self._compute([job], folder, self._device)

        def record(session: Session, operation: Operation) -> None:
            operations.succeed(session, operation, kind.record(session, operation, made))
            self._check_kept(made.files)

        self._write(record)
        if kind.after is not None:
            self._ask(kind.after)

    def _told(self, fraction: float, message: str) -> None:
        self._progress = Progress(COMPUTING * fraction, message)
        self._look_around()

    # ── computing ────────────────────────────────────────────────────────────────────────────

    def _compute(
        self, jobs: Sequence[Any], folder: Path, device: DeviceProcess | None
    ) -> tuple[Made, ...]:
        """Carry out jobs one after the other; what one made is stored while the next is computed.

        So `folder` never holds more than two of them make.
        """
        if device is None:
            reason = f"an operation of kind {self._kind!r} needs a device, and its queue has none"
            raise errors.OperationFailed(reason)
        every: list[Made] = []
        for number, job in enumerate(jobs):
            own = folder / str(number)
            own.mkdir()
            device.give(job, own)
            if every:
                with _ended_on_error(device):
                    self._put_away(every[-1].files)
                shutil.rmtree(folder / str(number - 1))
            every.append(self._made(device, number, len(jobs)))
        self._keep(every[-1].files)
        return tuple(every)

    def _made(self, device: DeviceProcess, number: int, count: int) -> Made:
        while True:
            with _ended_on_error(device):
                self._look_around()
            match device.next_event(LOOK_EVERY_S):
                case Progress(fraction, message):
                    self._progress = Progress(COMPUTING * (number + fraction) / count, message)
                case Done(made):
                    done: Made = made
                    return done
                case Failed(error):
                    raise error
                case Crashed() as crash:
                    self._tell(crash)
                case _:
                    pass

    def _tell(self, crash: Crashed) -> NoReturn:
        log.error("the job crashed", error=crash.kind, traceback=crash.traceback)
        if crash.kind in OUT_OF_MEMORY:
            raise Unforeseen("the worker's device ran out of memory")
        raise Unforeseen(self._unexpected(crash.kind))

    def _look_around(self) -> None:
        """Report progress now and then, and see whether there is a reason to stop.

        Raises `Cancelled`, `ShuttingDown`, `AttemptSuperseded`. A lost database is no reason: the
        job goes on, and the write that ends it decides.
        """
        if self._shutting_down():
            raise ShuttingDown
        now = time.monotonic()
        if now - self._reported_at < REPORT_EVERY_S:
            return
        self._reported_at = now
        try:
            with self._sessions.begin() as session:
                cancelled = operations.report(
                    session,
                    self._id,
                    self._number,
                    progress=self._progress.fraction,
                    message=self._progress.message,
                )
        except DATABASE_LOST as error:
            log.warning("progress not reported", error=type(error).__name__)
            return
        if cancelled:
            raise Cancelled

    # ── keeping and recording ────────────────────────────────────────────────────────────────

    def _keep(self, files: tuple[MadeFile, ...]) -> None:
        """Store the last files that were made."""
        self._progress = Progress(COMPUTING, "storing what was made")
        self._put_away(files)

    def _put_away(self, files: tuple[MadeFile, ...]) -> None:
        """Store files, a few at a time: each waits for the disk or the network."""
        context = copy_context()  # with the operation's name, for the log
        with ThreadPoolExecutor(KEEPERS) as keepers:
            for _ in keepers.map(lambda file: context.copy().run(self._keep_one, file), files):
                pass

    def _keep_one(self, file: MadeFile) -> None:
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            self._look_around()
            try:
                self._store.take_file(file.digest, file.path)
            except errors.Unavailable as error:
                if time.monotonic() > give_up_at:
                    raise
                log.warning("not stored, once more", reason=str(error))
                time.sleep(AGAIN_AFTER_S)
            else:
                return

    def _check_kept(self, files: tuple[MadeFile, ...]) -> None:
        """Look for what was stored, now that its rows hold it: a collection may have taken it.

        Raises `StoreUnavailable`, after which the attempt is made again.
        """
        for file in files:
            if self._store.stat(file.digest) is None:
                raise errors.StoreUnavailable(f"blob {file.digest} was collected meanwhile")

    def _ask(self, after: Callable[[Session, Operation], None]) -> None:
        """Ask for what follows; nothing that goes wrong with it undoes what is recorded."""
        try:
            with self._sessions.begin() as session:
                after(session, operations.find(session, self._id))
        except (errors.PatchbayError, *DATABASE_LOST) as error:
            log.warning("what follows was not asked for", reason=str(error))

    def _write(self, write: Callable[[Session, Operation], None]) -> None:
        """Make the write that ends the attempt, with the operation held.

        Raises `AttemptSuperseded`, also where an earlier try was committed but its answer lost.
        """
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            try:
                with self._sessions.begin() as session:
                    write(session, operations.hold(session, self._id, self._number))
            except DATABASE_LOST as error:
                if self._shutting_down() or time.monotonic() > give_up_at:
                    raise
                log.warning("result not recorded, once more", error=type(error).__name__)
                time.sleep(AGAIN_AFTER_S)
            else:
                return

    # ── the table of what to retry, and what fails ───────────────────────────────────────────

    def _end(self, error: Exception) -> Ending:
        match error:
            case (
                errors.AttemptSuperseded()
                | exc.OperationalError()
                | exc.InterfaceError()
                | exc.TimeoutError()
            ):
                raise error
            case Cancelled():
                self._write(operations.stop)
                return Ending.CANCELLED
            case ShuttingDown():
                return self._give_back()
            case _ if isinstance(error, RETRIED) and self._number < operations.MAX_ATTEMPTS:
                return self._repeat(str(error))
            case _:
                return self._fail(self._known(error))

    def _known(self, error: Exception) -> errors.PatchbayError:
        """The error as its user is to see it."""
        match error:
            case errors.PatchbayError():
                return error
            case ProcessDied():
                return errors.WorkerDied(self._number, str(error))
            case Unforeseen():
                return errors.OperationFailed(str(error))
            case _:
                log.error("the attempt crashed", exc_info=error)
                return errors.OperationFailed(self._unexpected(type(error).__name__))

    def _unexpected(self, kind: str) -> str:
        return (
            f"an unexpected error ({kind}) ended it; the worker's log has the details under "
            f"operation {self._id}"
        )

    def _fail(self, error: errors.PatchbayError) -> Ending:
        problem = operations.problem_of(error)

        def write(session: Session, operation: Operation) -> None:
            operations.fail(session, operation, problem)
            if isinstance(error, errors.DamagedBlob):
                audits.suspect(session, Digest(error.digest))

        self._write(write)
        return Ending.FAILED

    def _repeat(self, reason: str) -> Ending:
        self._write(
            lambda session, held: operations.requeue(session, held, f"trying again: {reason}")
        )
        return Ending.TO_REPEAT

    def _give_back(self) -> Ending:
        """Queue the operation anew; not tried twice: a second try could meet the next holder."""
        self._write(operations.give_back)
        return Ending.GIVEN_BACK


@contextlib.contextmanager
def _ended_on_error(device: DeviceProcess) -> Iterator[None]:
    """Kill a device that is at work where there is a reason to stop."""
    try:
        yield
    except BaseException:
        device.kill()
        raise

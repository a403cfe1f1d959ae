"""The one task: carry out an operation, whatever its kind, and see it to an end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog
from procrastinate import App, BaseRetryStrategy, JobContext, RetryDecision
from procrastinate.exceptions import JobAborted
from procrastinate.job_context import AbortReason
from procrastinate.jobs import Job
from sqlalchemy.orm import Session, sessionmaker

from service import observability
from service.blobs.store import BlobStore
from service.queue import TASK
from service.registry import operations
from service.worker import scratch
from service.worker.attempt import Attempt, Ending
from service.worker.device import DeviceProcess
from service.worker.kinds.kind import Kind

LONGER_EACH_TIME: Final = 6
"""By what the wait before another attempt grows: with 5 s at first, a store may be away for 35."""
UNEXPECTED_WAIT_S: Final = 2
"""How long a job waits after an error that this module did not foresee, such as a lost database."""
AT_ONCE: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""A time that has come whatever the clocks of worker and database say."""

log = observability.logger(__name__)


@dataclass(frozen=True)
class Parts:
    """What the task works with; `devices` by queue, `scratch` a folder of this worker's own.

    Maintenance has no device: its jobs run in the worker itself.
    """

    name: str
    sessions: sessionmaker[Session]
    store: BlobStore
    devices: Mapping[str, DeviceProcess]
    kinds: Mapping[str, Kind]
    scratch: Path
    retry_wait_s: float


class TryLater(Exception):
    """The operation is to be begun again, `wait_s` seconds from now."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"again in {wait_s} s")
        self.wait_s = wait_s


class UntilEnded(BaseRetryStrategy):
    """A job that ends with an exception goes back to its queue, always.

    How often an operation may be begun is counted by `operations.begin`, which ends it: a job that
    failed for good would leave its operation open for ever.
    """

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision:
        """At once after a shutdown, later otherwise."""
        _ = job
        match exception:
            case TryLater(wait_s=wait_s):
                return RetryDecision(retry_in={"milliseconds": round(1000 * wait_s)})
            case JobAborted():
                return RetryDecision(retry_at=AT_ONCE)
            case _:
                return RetryDecision(retry_in={"seconds": UNEXPECTED_WAIT_S})


def register(app: App, parts: Parts) -> None:
    """Make the task known to `app`."""

    @app.task(name=TASK, pass_context=True, retry=UntilEnded())
    def task(context: JobContext, operation: str) -> None:
        device = parts.devices.get(context.job.queue)

        def shutting_down() -> bool:
            return context.abort_reason() is AbortReason.SHUTDOWN

        with structlog.contextvars.bound_contextvars(operation=operation):
            carry_out(parts, operation, device, shutting_down)


def carry_out(
    parts: Parts, operation_id: str, device: DeviceProcess | None, shutting_down: Callable[[], bool]
) -> None:
    """Begin an attempt at an operation and see it through.

    Raises `JobAborted` where the worker shuts down, and `TryLater`: either way the operation is
    queued again.
    """
    with parts.sessions.begin() as session:
        operation = operations.begin(session, operation_id, worker=parts.name)
    if operation is None:
        log.info("the operation has ended")
        return
    attempt = Attempt(
        sessions=parts.sessions,
        store=parts.store,
        device=device,
        operation=operation,
        shutting_down=shutting_down,
    )
    log.info("attempt begun", kind=operation.kind, attempt=operation.attempt)
    with scratch.of_job(parts.scratch) as folder:
        ending = attempt.run(parts.kinds.get(operation.kind), folder)
    log.info("attempt over", ending=ending.value)
    match ending:
        case Ending.GIVEN_BACK:
            raise JobAborted
        case Ending.TO_REPEAT:
            raise TryLater(parts.retry_wait_s * LONGER_EACH_TIME ** (operation.attempt - 1))
        case _:
            return

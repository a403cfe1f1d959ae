"""procrastinate's job manager, made to stand a lost database and a worker taken for dead.

As it comes, a worker that was stopped and goes on would finish the job that another has taken over
meanwhile, so that nobody rescues it if that other one dies; and an error in the heartbeat or the
listener ends the worker, or, once its periodic side task is done, goes unnoticed for ever.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final, LiteralString, TypeVar

import psycopg
from procrastinate import exceptions, sql
from procrastinate.connector import BaseConnector
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager, NotificationCallback

from service import observability

AGAIN_AFTER_S: Final = 1.0
LAST_TRIES_S: Final = 3.0
"""How long a worker that is to end waits for a lost database."""

# Appended to a query of procrastinate's, `SELECT function(…)`: the row is locked and looked at by
# the statement that changes it. With two statements, of four workers that rescued one job at the
# same time, two gave it back, and the second took it from the worker that had begun it in between.
_HELD: Final = """
    FROM (SELECT id FROM procrastinate_jobs
          WHERE id = %(job_id)s AND status = 'doing' AND attempts = %(attempts)s
            AND worker_id IS NOT DISTINCT FROM %(worker_id)s
          FOR UPDATE) AS held"""
FINISH: Final = sql.queries["finish_job"].rstrip(";\n ") + _HELD
RETRY: Final = sql.queries["retry_job"].rstrip(";\n ") + _HELD

T = TypeVar("T")
log = observability.logger(__name__)


def is_lost(error: BaseException) -> bool:
    """Whether an error of procrastinate's says that the database does not answer."""
    cause = error.__cause__
    return isinstance(error, exceptions.ConnectorException) and isinstance(
        cause, psycopg.OperationalError | psycopg.InterfaceError
    )


class FencedJobs(JobManager):
    """Writes to a job only while its worker holds it, and waits while the database is away."""

    def __init__(self, connector: BaseConnector, stopping: asyncio.Event) -> None:
        super().__init__(connector)
        self._stopping = stopping

    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:  # noqa: FBT001 - procrastinate's signature
        """End a job, if it is still held as it was when it was read."""
        await self._while_held(job, FINISH, status=status.value, delete_job=delete_job)

    async def retry_job(
        self,
        job: Job,
        retry_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        lock: str | None = None,
    ) -> None:
        """Give a job back to its queue, if it is still held as it was when it was read."""
        await self._while_held(
            job,
            RETRY,
            retry_at=retry_at or datetime.now(UTC),
            new_priority=priority,
            new_queue_name=queue,
            new_lock=lock,
        )

    async def update_heartbeat(self, worker_id: int) -> None:
        """Give a sign of life."""
        update = super().update_heartbeat
        await self._patiently(lambda: update(worker_id))

    async def unregister_worker(self, worker_id: int) -> None:
        """Forget a worker; a job that it still holds counts as stalled from then on."""
        unregister = super().unregister_worker
        await self._patiently(lambda: unregister(worker_id))

    async def listen_for_jobs(
        self, *, on_notification: NotificationCallback, queues: Iterable[str] | None = None
    ) -> None:
        """Listen for new jobs, again after the connection was lost."""
        listen = super().listen_for_jobs
        await self._patiently(lambda: listen(on_notification=on_notification, queues=queues))

    async def _while_held(self, job: Job, query: LiteralString, **values: Any) -> None:
        written = await self._patiently(
            lambda: self.connector.execute_query_all_async(
                query=query,
                job_id=job.id,
                worker_id=job.worker_id,
                attempts=job.attempts,
                **values,
            )
        )
        if not written:
            log.warning("somebody else has taken the job over", job=job.id)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        give_up_at: float | None = None
        while True:
            try:
                return await call()
            except exceptions.ConnectorException as error:
                if not is_lost(error):
                    raise
                now = asyncio.get_running_loop().time()
                if self._stopping.is_set():
                    give_up_at = give_up_at or now + LAST_TRIES_S
                    if now >= give_up_at:
                        raise
                log.warning("the database does not answer", reason=str(error.__cause__).strip())
                await asyncio.sleep(AGAIN_AFTER_S)

"""A worker process: takes jobs from the queues it serves until it is told to end.

One event loop holds a procrastinate worker for each queue, the sign of life, and the rescue of jobs
whose worker died. Tasks run in threads, torch in child processes. SIGTERM or Ctrl-C: jobs under way
are stopped and go back to their queues; a second one ends the process where it stands.
"""

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from procrastinate import App
from procrastinate.exceptions import ConnectorException
from sqlalchemy.orm import Session, sessionmaker

from service import errors, observability, queue
from service.db import engine as db
from service.registry import operations
from service.worker import fenced, scratch, tasks, upkeep
from service.worker.attempt import DATABASE_LOST
from service.worker.checked import Checked
from service.worker.device import CARRIER, DeviceProcess, StoreAddress
from service.worker.kinds.kind import Kind
from service.worker.kinds.table import KINDS

POLL_EVERY_S: Final = 2.0
"""How often a queue is looked at though nothing was heard: a notification can be lost, and none
is sent for a job that goes back to its queue."""
GRACE_S: Final = 0.5
"""How long jobs may still take to end by themselves when the worker is to end."""
AGAIN_AFTER_S: Final = 1.0
CONNECTIONS_PER_QUEUE: Final = 2

log = observability.logger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """How a worker is set up; `name` is unique among the workers of a database.

    `scratch` is a folder for files under way, by default on the blob store's own disk, else the
    system's for temporary files.
    """

    name: str
    database_url: str = field(repr=False)
    blob_url: str
    s3_endpoint_url: str | None = None
    disk_reserve_bytes: int | None = None
    device: str = "auto"
    queues: tuple[str, ...] = (queue.GPU, queue.CPU, queue.MAINTENANCE)
    heartbeat_s: float = 10.0
    stalled_after_s: float = 30.0
    rescue_every_s: float = 5.0
    retry_wait_s: float = 5.0
    upkeep_every_s: float = 60.0
    overlay_cache_bytes: int = 10 * 2**30
    scratch: Path | None = None


def run(config: WorkerConfig, *, kinds: Mapping[str, Kind] = KINDS, carrier: str = CARRIER) -> None:
    """Work until told to end.

    Raises `DeviceUnusable`, `DatabaseUnavailable`, `StoreUnavailable` and `BadStoreUrl` where the
    worker cannot start.
    """
    with _parts(config, kinds, carrier) as parts:
        asyncio.run(_Worker(config, parts).work())


@contextlib.contextmanager
def _parts(config: WorkerConfig, kinds: Mapping[str, Kind], carrier: str) -> Iterator[tasks.Parts]:
    address = StoreAddress(config.blob_url, config.s3_endpoint_url, config.disk_reserve_bytes)
    store = address.open()
    folder = config.scratch or store.scratch or Path(tempfile.gettempdir())
    wanted = {queue.GPU: config.device, queue.CPU: "cpu"}
    checked = Checked()
    devices = {
        on: DeviceProcess(device, address, carrier=carrier, checked=checked)
        for on, device in wanted.items()
        if on in config.queues
    }
    engine = db.create(config.database_url, application=f"patchbay worker {config.name}")
    try:
        with scratch.of_worker(folder) as own:
            if queue.GPU in devices:
                devices[queue.GPU].start()  # a wrong device is told now, not with the first job
            yield tasks.Parts(
                name=config.name,
                sessions=db.sessions(engine),
                store=store,
                devices=devices,
                kinds=kinds,
                scratch=own,
                retry_wait_s=config.retry_wait_s,
            )
    finally:
        for process in devices.values():
            process.kill()
        engine.dispose()


class _Worker:
    """The event loop's side of a worker."""

    def __init__(self, config: WorkerConfig, parts: tasks.Parts) -> None:
        self._config = config
        self._parts = parts
        self._stopping = asyncio.Event()

    async def work(self) -> None:
        """Serve the queues until told to end."""
        self._listen_for_signals()
        await asyncio.to_thread(self._give_sign)
        async with self._app() as app:
            loops = [asyncio.create_task(self._serve(app, on)) for on in self._config.queues]
            loops.append(asyncio.create_task(self._give_signs()))
            if queue.MAINTENANCE in self._config.queues:
                loops.append(asyncio.create_task(self._rescue_now_and_then(app)))
                loops.append(asyncio.create_task(self._tidy_now_and_then()))
            told = asyncio.create_task(self._stopping.wait())
            log.info("worker started", name=self._config.name, queues=self._config.queues)
            await asyncio.wait([told, *loops], return_when=asyncio.FIRST_COMPLETED)
            self._stopping.set()
            for loop in loops:
                loop.cancel()
            ends = await asyncio.gather(*loops, return_exceptions=True)
        await asyncio.to_thread(self._say_goodbye)
        log.info("worker ended", name=self._config.name)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    @contextlib.asynccontextmanager
    async def _app(self) -> AsyncIterator[App]:
        app = queue.open_app(
            self._config.database_url,
            heartbeat_s=self._config.heartbeat_s,
            stalled_after_s=self._config.stalled_after_s,
            connections=CONNECTIONS_PER_QUEUE * len(self._config.queues) + 1,
        )
        app.job_manager = fenced.FencedJobs(app.connector, self._stopping)
        tasks.register(app, self._parts)
        async with app.open_async():
            yield app

    def _listen_for_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)

    def _stop(self) -> None:
        if self._stopping.is_set():
            os._exit(1)  # what is under way is rescued by another worker
        log.info("worker is to end; once more ends it at once")
        self._stopping.set()

    async def _serve(self, app: App, on: str) -> None:
        """Take jobs from queue `on`, one at a time, whatever becomes of the database."""
        while not self._stopping.is_set():
            # One job at a time also means that no job is running while the next is fetched: a
            # fetch whose answer is lost ends this procrastinate worker, and once it is
            # unregistered, the job that it was given counts as stalled.
            with contextlib.suppress(ConnectorException):
                await app.run_worker_async(
                    queues=[on],
                    name=f"{self._config.name}/{on}",
                    concurrency=1,
                    fetch_job_polling_interval=POLL_EVERY_S,
                    shutdown_graceful_timeout=GRACE_S,
                    install_signal_handlers=False,
                    delete_jobs="successful",
                )
            log.warning("queue lost, once more", queue=on)
            await asyncio.sleep(AGAIN_AFTER_S)

    async def _give_signs(self) -> None:
        while True:
            await asyncio.sleep(self._config.heartbeat_s)
            try:
                await asyncio.to_thread(self._give_sign)
            except errors.DatabaseUnavailable:
                log.warning("no sign given: the database does not answer")

    async def _rescue_now_and_then(self, app: App) -> None:
        while True:
            await asyncio.sleep(self._config.rescue_every_s)
            try:
                await rescue(app, self._config.stalled_after_s)
            except ConnectorException as error:
                if not fenced.is_lost(error):
                    raise
                log.warning("no rescue: the database does not answer")

    async def _tidy_now_and_then(self) -> None:
        parts, limit_bytes = self._parts, self._config.overlay_cache_bytes
        while True:
            await asyncio.sleep(self._config.upkeep_every_s)
            try:
                await asyncio.to_thread(upkeep.tidy, parts.sessions, parts.store, limit_bytes)
            except (errors.Unavailable, *DATABASE_LOST) as error:
                log.warning("not tidied up, later again", reason=str(error))

    def _give_sign(self) -> None:
        device = self._parts.devices.get(queue.GPU)
        name = device.device if device else "cpu"
        with _transaction(self._parts.sessions) as session:
            operations.worker_seen(session, self._config.name, self._config.queues, name)

    def _say_goodbye(self) -> None:
        with (
            contextlib.suppress(errors.DatabaseUnavailable),  # it will be taken for dead instead
            _transaction(self._parts.sessions) as session,
        ):
            operations.worker_gone(session, self._config.name)


async def rescue(app: App, stalled_after_s: float) -> None:
    """Give jobs whose worker is silent or gone back to their queues.

    Safe from several places at once: each gives back a job only as it saw it stalled.
    """
    stalled = await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=stalled_after_s)
    for job in stalled:
        log.warning("a stalled job goes back to its queue", job=job.id, **job.task_kwargs)
        await app.job_manager.retry_job(job, retry_at=tasks.AT_ONCE)


@contextlib.contextmanager
def _transaction(sessions: sessionmaker[Session]) -> Iterator[Session]:
    try:
        with sessions.begin() as session:
            yield session
    except DATABASE_LOST as error:
        raise errors.DatabaseUnavailable from error

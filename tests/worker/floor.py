"""Real worker processes on a database of their own, and a Postgres that can be stopped."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from service.db import engine as engines
from service.db.tables.operations import Operation
from service.embedded.home import Home
from service.embedded.postgres import EmbeddedPostgres
from service.registry import operations
from service.registry.access import OWNER

BENCH = "from tests.worker import workbench; workbench.main()"
PRODUCTION = "from tests.worker import workbench; workbench.production()"


LONG_S = 60.0  # where the time is not what is tested: other tests may load the machine


@dataclass
class Floor:
    """Where workers work: starts them, asks for operations, watches them."""

    database_url: str
    sessions: sessionmaker[Session]
    folder: Path
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def blobs(self) -> Path:
        return self.folder / "blobs"

    def start(self, *names: str, program: str = BENCH, **changes: Any) -> None:
        """Start workers and wait until each has given a sign of life."""
        for name in names:
            self._launch(name, program, changes)
        for name in names:
            self.until(lambda name=name: self._has_started(name))  # type: ignore[misc]

    def _launch(self, name: str, program: str, changes: dict[str, Any]) -> None:
        config = {
            "name": name,
            "database_url": self.database_url,
            "blob_url": str(self.blobs),
            "device": "cpu",
            "heartbeat_s": 1,
            "stalled_after_s": 4,
            "rescue_every_s": 1,
            "retry_wait_s": 0.1,
            "scratch": str(self.folder / "scratch"),
            **changes,
        }
        with self.log(name).open("ab") as log:
            self.workers[name] = subprocess.Popen(  # noqa: S603 - programs of this file
                [sys.executable, "-c", program, json.dumps(config)],
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
                stderr=log,
                start_new_session=True,
            )

    def _has_started(self, name: str) -> bool:
        assert self.workers[name].poll() is None, self.log(name).read_text()
        with self.sessions.begin() as session:
            alive = operations.live_workers(session, operations.Limits())
            return name in {worker.name for worker in alive}

    def holder_of(self, operation: str) -> tuple[str, str]:
        """The worker that carries an operation out, and another one."""
        holder = self.look(operation).worker
        assert holder
        (other,) = set(self.workers) - {holder}
        return holder, other

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def ask(
        self,
        *,
        kind: str = "bench",
        steps: int = 1,
        step_s: float = 0.1,
        act: str = "",
        on: str = "gpu",
    ) -> str:
        """Ask for a bench job; the id of its operation."""
        body = {"steps": steps, "step_s": step_s, "act": act}
        with self.sessions.begin() as session:
            return operations.request(
                session, kind, "a test", body, by=OWNER, on=on, limits=operations.Limits()
            ).id

    def look(self, operation: str) -> Operation:
        with self.sessions.begin() as session:
            return operations.find(session, operation)

    def until_state(self, operation: str, state: str, within_s: float = LONG_S) -> Operation:
        self.until(lambda: self.look(operation).state == state, within_s, operation)
        return self.look(operation)

    def until_under_way(self, operation: str, within_s: float = LONG_S) -> None:
        self.until(lambda: self.look(operation).progress > 0, within_s, operation)

    def until(
        self, holds: Callable[[], bool], within_s: float = LONG_S, operation: str = ""
    ) -> None:
        give_up_at = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > give_up_at:
                pytest.fail(self._story(operation))
            time.sleep(0.05)

    def recordings(self, operation: str) -> list[int]:
        """The attempts that recorded a result."""
        query = text("SELECT attempt FROM recordings WHERE operation = :id")
        with self.sessions.begin() as session:
            return list(session.scalars(query, {"id": operation}))

    def open_jobs(self) -> int:
        """How many jobs wait or run."""
        query = text("SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')")
        with self.sessions.begin() as session:
            return int(session.scalar(query) or 0)

    def end(self) -> None:
        for worker in self.workers.values():
            if worker.poll() is None:
                worker.kill()
                worker.send_signal(signal.SIGCONT)
            worker.wait()

    def _story(self, operation: str) -> str:
        logs = [f"== {log.name}\n{log.read_text()}" for log in self.folder.glob("*.log")]
        what = vars(self.look(operation)) if operation else "not in time"
        return "\n".join([str(what), *logs])


@contextlib.contextmanager
def opened(database_url: str, folder: Path) -> Iterator[Floor]:
    """A floor on a migrated database; its workers are ended with it."""
    engine = engines.create(database_url, application="tests")
    floor = Floor(database_url, engines.sessions(engine), folder)
    with floor.sessions.begin() as session:
        session.execute(text("CREATE TABLE recordings (operation text, attempt int)"))
    try:
        yield floor
    finally:
        floor.end()
        engine.dispose()


class Server:
    """A Postgres on a home of its own; the URL outlives it."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._running: EmbeddedPostgres | None = None

    def start(self) -> str:
        self._running = EmbeddedPostgres.start(self._home, fsync=False)
        return self._running.url

    def stop(self) -> None:
        if self._running is not None:
            self._running.stop()
        self._running = None

    @property
    def url(self) -> str:
        assert self._running is not None
        return self._running.url

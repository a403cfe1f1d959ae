"""Defer a job inside the caller's transaction: procrastinate on the same Postgres.

The row that records an operation and the job that carries it out commit together or not at all.
"""

from functools import cache
from typing import cast

import psycopg
from procrastinate import App, PsycopgConnector, SyncPsycopgConnector
from sqlalchemy.orm import Session

TASK = "patchbay.carry_out"
GPU = "gpu"
CPU = "cpu"
MAINTENANCE = "maint"
ALL = (GPU, CPU, MAINTENANCE)


@cache
def _deferrer() -> App:
    """An app that is never opened: every defer below brings the caller's own connection."""
    return App(connector=SyncPsycopgConnector())


def defer(session: Session, queue: str, operation: str, *, lock: str | None = None) -> None:
    """Queue the carrying out of `operation`; visible to workers when the caller commits.

    Jobs of one `lock` are carried out one after the other, in the order of their coming.
    """
    driver = cast("psycopg.Connection", session.connection().connection.driver_connection)
    job = _deferrer().configure_task(TASK, queue=queue, lock=lock, connection=driver)
    job.defer(operation=operation)


def open_app(url: str, *, heartbeat_s: float, stalled_after_s: float, connections: int) -> App:
    """The app of a worker process; `url` is a plain `postgresql://` one."""
    return App(
        connector=PsycopgConnector(conninfo=url, min_size=1, max_size=connections),
        worker_defaults={
            "update_heartbeat_interval": heartbeat_s,
            "stalled_worker_timeout": stalled_after_s,
        },
    )

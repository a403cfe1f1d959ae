"""Health check of a worker's container: exits 0 where the database heard of it lately.

A worker listens nowhere; the sign of life that it gives to the database is what the service goes
by too. Its default name begins with the name of its host.
"""  # noqa: INP001  # a script of the image

import socket
import sys
from datetime import timedelta

from service.db import engine as db
from service.registry import operations
from service.settings import Settings


def is_alive(settings: Settings, host: str) -> bool:
    """Whether a worker on `host` gave a sign within the time that the settings allow."""
    if settings.database_url is None:
        return False
    engine = db.create(settings.database_url.get_secret_value(), application="patchbay health")
    limits = operations.Limits(stalled_after=timedelta(seconds=settings.stalled_after_s))
    with db.sessions(engine).begin() as session:
        names = [worker.name for worker in operations.live_workers(session, limits)]
    engine.dispose()
    return any(name.startswith(f"{host}-") for name in names)


if __name__ == "__main__":
    sys.exit(0 if is_alive(Settings(), socket.gethostname()) else 1)

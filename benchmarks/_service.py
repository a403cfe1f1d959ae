"""A running service as a benchmark sees it: what it has spent, and whether it is at rest."""

import time

import psutil

from examples.local_service import LocalService
from service.client.client import Client


def spent(service: LocalService) -> float:
    """CPU seconds of the service with all its parts: database, worker, the worker's child."""
    own = psutil.Process(service.process.pid)
    times = [each.cpu_times() for each in (own, *own.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


def settle(client: Client) -> None:
    """Wait until the service has nothing to do, such as hashing whole files of the last build."""
    time.sleep(0.5)  # that is asked for a moment after the build has ended
    while any(not each.state.ended for each in client.operations.listed()):
        time.sleep(0.2)


def database_url(service: LocalService) -> str:
    """Where its worker finds the database."""
    family = psutil.Process(service.process.pid).children(recursive=True)
    worker = next(each for each in family if each.cmdline()[-1:] == ["worker"])
    url: str = worker.environ()["PATCHBAY_DATABASE_URL"]
    return url

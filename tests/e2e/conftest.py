"""One real service that most tests share, and a namespace of its own for each of them."""

from collections.abc import Iterator

import pytest

from tests.e2e.bench import Bench
from tests.service_process import ServiceProcess


@pytest.fixture(scope="session")
def service() -> Iterator[ServiceProcess]:
    """`patchbay serve`, for every test of the group `service`; what kills starts its own."""
    with ServiceProcess() as started:
        yield started


@pytest.fixture
def bench(service: ServiceProcess) -> Bench:
    """An empty namespace."""
    return Bench(service.client, service.home / "blobs")


@pytest.fixture(scope="session")
def pair(service: ServiceProcess) -> Bench:
    """A namespace with models `clean` and `robust` and patch `fog`; to be read, not changed."""
    bench = Bench(service.client, service.home / "blobs")
    bench.pair()
    return bench

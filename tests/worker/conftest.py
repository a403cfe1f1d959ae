"""Floors to work on: one of the test's own, and one with a worker that tests share."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from service.db import engine as engines
from service.db import migrate
from service.embedded.home import Home
from tests.worker.floor import Floor, Server, opened


@pytest.fixture
def floor(own_database_url: str, tmp_path: Path) -> Iterator[Floor]:
    """A floor of the test's own, without a worker."""
    with opened(own_database_url, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def staffed(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    """A floor with one worker, for tests that leave it alive."""
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE staffed")
    url = engines.with_database(postgres_url, "staffed")
    migrate.upgrade(url)
    with opened(url, tmp_path_factory.mktemp("staffed")) as made:
        made.start("worker")
        yield made


@pytest.fixture
def server() -> Iterator[Server]:
    """A Postgres that the test may stop and start."""
    path = Path(tempfile.mkdtemp(prefix="patchbay-"))
    with Home.open(path) as home:
        made = Server(home)
        made.start()
        yield made
        made.stop()
    shutil.rmtree(path)

"""Real parts for every test: one Postgres a session, a fresh database a worker, a blob folder."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psycopg
import pytest
import structlog
from _pytest.nodeid import coerce_node_id
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from service.blobs.folder import FolderStore
from service.db import engine as engines
from service.db import migrate
from service.embedded.postgres import start_temporary
from tests import databases

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

# Left to itself structlog draws tracebacks with every local variable: seconds a crash, and secrets.
structlog.configure(
    processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `--dist loadgroup` group: xdist 3.8 writes a test's group where pytest 9.2 never looks.

    Without it every worker starts the services that a group is to share. A later xdist that writes
    no `_nodeid` makes this do nothing.
    """
    for item in items:
        if grouped := vars(item).get("_nodeid"):
            item._id = coerce_node_id(grouped)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A Postgres of this test process's own, empty but for the first database."""
    with start_temporary() as server:
        yield server.url


@pytest.fixture(scope="session")
def database_url(postgres_url: str) -> str:
    """A migrated database that tests share; what they write is rolled back."""
    migrate.upgrade(postgres_url)
    return postgres_url


@pytest.fixture(scope="session")
def engine(database_url: str) -> Iterator[Engine]:
    made = engines.create(database_url, application="tests")
    yield made
    made.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """A session inside a transaction that is rolled back when the test ends."""
    with engine.connect() as connection:
        outer = connection.begin()
        with Session(
            connection, join_transaction_mode="create_savepoint", expire_on_commit=False
        ) as opened:
            yield opened
        outer.rollback()


@pytest.fixture(scope="session")
def migrated_template(postgres_url: str) -> str:
    """Name of a migrated database that nobody connects to, so that it can be copied quickly."""
    with psycopg.connect(postgres_url, autocommit=True, dbname="postgres") as admin:
        admin.execute("CREATE DATABASE migrated")
    migrate.upgrade(engines.with_database(postgres_url, "migrated"))
    return "migrated"


@pytest.fixture
def own_database_url(postgres_url: str, migrated_template: str) -> Iterator[str]:
    """A migrated database of the test's own, for what must commit."""
    with databases.copied(postgres_url, migrated_template) as url:
        yield url


@pytest.fixture
def own_sessions(own_database_url: str) -> Iterator[sessionmaker[Session]]:
    """Sessions that commit, on a database of the test's own."""
    made = engines.create(own_database_url, application="tests")
    yield engines.sessions(made)
    made.dispose()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """An empty blob folder."""
    return FolderStore(tmp_path / "blobs")

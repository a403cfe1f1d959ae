"""Databases of tests' own, copied from a template and taken away whoever is connected to them."""

import contextlib
import os
import time
from collections.abc import Iterator

import psycopg
from psycopg import sql

from service.db import engine as engines

_WAIT_S = 30.0


@contextlib.contextmanager
def copied(postgres_url: str, template: str) -> Iterator[str]:
    """The address of a copy of `template`, which lasts as long as the context."""
    name = f"own_{os.urandom(6).hex()}"
    with psycopg.connect(postgres_url, autocommit=True, dbname="postgres") as admin:
        parts = map(sql.Identifier, (name, template))
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*parts))
    yield engines.with_database(postgres_url, name)
    with psycopg.connect(postgres_url, autocommit=True, dbname="postgres") as admin:
        _drop(admin, sql.Identifier(name))


def _drop(admin: psycopg.Connection, name: sql.Identifier) -> None:
    """Drop a database with all its connections; an autovacuum that is at it is waited for.

    Postgres lets nobody but a superuser end one, not even who drops a database of their own.
    """
    give_up_at = time.monotonic() + _WAIT_S
    while True:
        try:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
        except psycopg.errors.InsufficientPrivilege:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.2)
        else:
            return

"""Runs the revisions: one transaction each, under an advisory lock, with time-outs.

Forward only: the running release must work on the new schema, so there is nothing to take back.
"""

from alembic import context
from sqlalchemy import Connection, text

import service.db.tables  # noqa: F401  # registers every table
from service.db.declarative import Table
from service.db.engine import create

LOCK = 0x70617463  # "patc": two migrations at once wait for each other


def _include(name: str | None, kind: str, _parents: object) -> bool:
    """Leave procrastinate's own tables out of comparisons."""
    return not (kind == "table" and (name or "").startswith("procrastinate_"))


def _run(connection: Connection) -> None:
    connection.execute(text("SET lock_timeout = '10s'"))
    connection.execute(text("SET statement_timeout = '10min'"))
    connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
    connection.commit()
    try:
        context.configure(
            connection=connection,
            target_metadata=Table.metadata,
            transaction_per_migration=True,
            include_name=_include,
        )
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": LOCK})
        connection.commit()


engine = create(context.config.get_main_option("sqlalchemy.url") or "", application="migrate")
with engine.connect() as opened:
    _run(opened)
engine.dispose()

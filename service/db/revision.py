"""Which revisions of the schema a database lacks."""

from functools import cache
from typing import Final

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from service.db import migrate

_ANY_URL: Final = "postgresql://"  # only the folder of revisions is read


def pending(connection: Connection) -> list[str]:
    """The newest revisions of this release that the database does not have; empty: up to date.

    A database of a later release lacks none of ours: its schema serves us too.
    """
    present = set(MigrationContext.configure(connection).get_current_heads())
    known = _known()
    if any(revision not in known for revision in present):
        return []
    return [head for head in _heads() if head not in present]


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(migrate.config(_ANY_URL))


@cache
def _heads() -> tuple[str, ...]:
    return tuple(_scripts().get_heads())


@cache
def _known() -> frozenset[str]:
    return frozenset(script.revision for script in _scripts().walk_revisions())

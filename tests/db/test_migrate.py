import io

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect

from service.db import migrate


def test_there_is_one_head() -> None:
    heads = ScriptDirectory.from_config(migrate.config("postgresql://")).get_heads()

    assert len(heads) == 1


def test_an_empty_database_migrated_equals_the_tables(own_database_url: str) -> None:
    config = migrate.config(own_database_url)
    config.stdout = io.StringIO()

    command.check(config)  # raises where a revision is missing

    assert "No new upgrade operations" in config.stdout.getvalue()


def test_migrating_again_changes_nothing(engine: Engine, database_url: str) -> None:
    before = inspect(engine).get_table_names()

    migrate.upgrade(database_url)

    assert inspect(engine).get_table_names() == before

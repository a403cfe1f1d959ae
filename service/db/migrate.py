"""Bring a database's schema up to this release."""

from pathlib import Path

from alembic import command
from alembic.config import Config

import migrations


def config(url: str) -> Config:
    """Alembic's configuration for the database at `url`, with no file of its own."""
    made = Config()
    made.set_main_option("script_location", str(Path(migrations.__file__).parent))
    # `%` begins an interpolation in a configuration value; passwords may hold one.
    made.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    made.set_main_option(
        "file_template", "%%(year)d_%%(month).2d_%%(day).2d_%%(hour).2d%%(minute).2d_%%(slug)s"
    )
    return made


def upgrade(url: str) -> None:
    """Apply every revision that the database lacks; safe to run from several places at once."""
    command.upgrade(config(url), "head")

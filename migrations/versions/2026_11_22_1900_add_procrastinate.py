"""Add procrastinate's own schema.

The SQL is a frozen copy of procrastinate 3.10.0's `schema.sql`: the file in site-packages changes
with upgrades. Each later `procrastinate/sql/migrations/*` becomes a revision of its own.
"""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    sql = Path(__file__).with_name("procrastinate_3_10_0.sql").read_text(encoding="utf-8")
    # Several statements in one call: psycopg allows that only without parameters.
    driver = op.get_bind().connection.driver_connection
    assert driver is not None  # noqa: S101  # a live connection always has one
    driver.execute(sql)

"""Add what a model version knows of its making: forward order, and what it was converted from."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    json = postgresql.JSONB(astext_type=sa.Text())
    op.add_column("model_versions", sa.Column("forward_order", json, nullable=True))
    op.add_column("model_versions", sa.Column("conversion", json, nullable=True))
    op.add_column("model_versions", sa.Column("source_digest", sa.Text(), nullable=True))

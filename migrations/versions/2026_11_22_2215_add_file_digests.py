"""Add the sha256 of patched files, and the operation that computes it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("builds", sa.Column("digest_operation_id", sa.Text(), nullable=True))
    op.add_column("build_files", sa.Column("file_digest", sa.Text(), nullable=True))

"""Add when blobs were verified, found unneeded and removed."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in ("verified_at", "collected_at", "removed_at"):
        op.add_column("blobs", sa.Column(column, sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_blobs_verified_at", "blobs", [sa.text("verified_at NULLS FIRST"), "digest"])
    op.create_index(
        "ix_blobs_to_remove",
        "blobs",
        ["digest"],
        postgresql_where=sa.text("collected_at is not null and removed_at is null"),
    )

"""Find builds by the digest of a patched file."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_build_files_file_digest", "build_files", ["file_digest"])

"""Add measured signatures, neighbours and comparisons."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "comparisons",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        _now("made_at"),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_comparisons")),
    )
    op.create_table(
        "measured_signatures",
        sa.Column("version_id", sa.BigInteger(), nullable=False),
        sa.Column("keys", sa.LargeBinary(), nullable=False),
        sa.Column("energies", sa.LargeBinary(), nullable=False),
        sa.Column("sketch", sa.LargeBinary(), nullable=False),
        sa.Column("length", sa.Double(), nullable=False),
        sa.Column("floor", sa.Double(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        _now("measured_at"),
        _version("version_id", "measured_signatures"),
        sa.PrimaryKeyConstraint("version_id", name=op.f("pk_measured_signatures")),
    )
    # Numbers that look random: packing them would only cost time.
    op.execute("ALTER TABLE measured_signatures ALTER COLUMN sketch SET STORAGE EXTERNAL")
    op.create_table(
        "neighbours",
        sa.Column("version_id", sa.BigInteger(), nullable=False),
        sa.Column("neighbour_id", sa.BigInteger(), nullable=False),
        sa.Column("cosine", sa.Double(), nullable=False),
        sa.Column("error", sa.Double(), nullable=False),
        sa.Column("own_share", sa.Double(), nullable=False),
        sa.Column("other_share", sa.Double(), nullable=False),
        sa.Column("strength", sa.Double(), nullable=False),
        _version("neighbour_id", "neighbours"),
        _version("version_id", "neighbours"),
        sa.PrimaryKeyConstraint("version_id", "neighbour_id", name=op.f("pk_neighbours")),
    )
    op.create_index(
        "ix_neighbours_version_id_strength", "neighbours", ["version_id", "strength"], unique=False
    )


def _now(name: str) -> sa.Column[object]:
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
    )


def _version(column: str, table: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_{column}_patch_versions")
    return sa.ForeignKeyConstraint([column], ["patch_versions.id"], name=name)

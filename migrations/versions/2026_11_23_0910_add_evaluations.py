"""Add evaluation results."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "evaluations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("patch_version_id", sa.BigInteger(), nullable=False),
        sa.Column("base_version_id", sa.BigInteger(), nullable=False),
        sa.Column("data_set", sa.Text(), nullable=False),
        sa.Column("corruption", sa.Text(), nullable=False),
        sa.Column("severity", sa.Numeric(6, 3), nullable=True),
        sa.Column("scale", sa.Numeric(6, 4), nullable=False),
        sa.Column("accuracy", sa.Float(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["patch_version_id"],
            ["patch_versions.id"],
            name=op.f("fk_evaluations_patch_version_id_patch_versions"),
        ),
        sa.ForeignKeyConstraint(
            ["base_version_id"],
            ["model_versions.id"],
            name=op.f("fk_evaluations_base_version_id_model_versions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
    )
    op.create_index(
        "uq_evaluations_condition",
        "evaluations",
        [
            "patch_version_id",
            "base_version_id",
            "data_set",
            "corruption",
            "severity",
            "scale",
            "seed",
        ],
        unique=True,
        postgresql_nulls_not_distinct=True,
    )
    op.create_index("ix_evaluations_base_version_id", "evaluations", ["base_version_id"])
    op.create_index(
        "ix_evaluations_data_set_corruption_id", "evaluations", ["data_set", "corruption", "id"]
    )

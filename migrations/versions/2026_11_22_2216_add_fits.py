"""Add what bases offer, what patches need, and which fit."""

import hashlib
import json
from collections import Counter

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_KEYS = postgresql.ARRAY(sa.BigInteger())
_PATCHABLE = {"F64", "F32", "F16", "BF16"}


def upgrade() -> None:
    op.create_table(
        "architectures",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("offers", _KEYS, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_architectures")),
        sa.UniqueConstraint("digest", name=op.f("uq_architectures_digest")),
    )
    op.create_table(
        "requirements",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("by_address", _KEYS, nullable=False),
        sa.Column("by_name", _KEYS, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_requirements")),
        sa.UniqueConstraint("digest", name=op.f("uq_requirements_digest")),
    )
    op.create_table(
        "fits",
        sa.Column("requirement_id", sa.BigInteger(), nullable=False),
        sa.Column("architecture_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["requirement_id"],
            ["requirements.id"],
            name=op.f("fk_fits_requirement_id_requirements"),
        ),
        sa.ForeignKeyConstraint(
            ["architecture_id"],
            ["architectures.id"],
            name=op.f("fk_fits_architecture_id_architectures"),
        ),
        sa.PrimaryKeyConstraint("requirement_id", "architecture_id", name=op.f("pk_fits")),
    )
    op.create_index("ix_fits_architecture_id", "fits", ["architecture_id"])
    for table, columns in (
        ("architectures", ["offers"]),
        ("requirements", ["by_name", "by_address"]),
    ):
        for column in columns:
            op.create_index(f"ix_{table}_{column}", table, [column], postgresql_using="gin")
    for table, column, target in (
        ("model_versions", "architecture_id", "architectures"),
        ("patch_versions", "requirement_id", "requirements"),
    ):
        op.add_column(table, sa.Column(column, sa.BigInteger(), nullable=True))
        name = op.f(f"fk_{table}_{column}_{target}")
        op.create_foreign_key(name, table, target, [column], ["id"])
        op.create_index(op.f(f"ix_{table}_{column}"), table, [column])
    _backfill(op.get_bind())


def _backfill(database: sa.Connection) -> None:
    for version, headers in _headers(database).items():
        _record(
            database,
            "INSERT INTO architectures (digest, offers) VALUES (:digest, :keys)",
            "UPDATE model_versions SET architecture_id = (SELECT id FROM architectures"
            " WHERE digest = :digest) WHERE id = :version",
            version,
            {"keys": _offers(headers)},
        )
    for version, tensors in database.execute(sa.text("SELECT id, tensors FROM patch_versions")):
        by_address = sorted({_key(name, shape, path) for path, name, shape, _ in tensors})
        unique = len({name for _, name, _, _ in tensors}) == len(tensors)
        by_name = sorted({_key(name, shape) for _, name, shape, _ in tensors}) if unique else None
        _record(
            database,
            "INSERT INTO requirements (digest, by_address, by_name)"
            " VALUES (:digest, :by_address, :by_name)",
            "UPDATE patch_versions SET requirement_id = (SELECT id FROM requirements"
            " WHERE digest = :digest) WHERE id = :version",
            version,
            {"by_address": by_address, "by_name": by_name},
        )
    database.execute(
        sa.text(
            "INSERT INTO fits (requirement_id, architecture_id) SELECT r.id, a.id"
            " FROM requirements r, architectures a"
            " WHERE r.by_name <@ a.offers OR r.by_address <@ a.offers"
        )
    )


def _headers(database: sa.Connection) -> dict[int, dict[str, dict[str, object]]]:
    """The tensors of each weight file of each version, as its header has them."""
    rows = database.execute(
        sa.text(
            "SELECT f.version_id, f.path, h.raw FROM model_files f"
            " JOIN weight_headers h ON h.digest = f.digest WHERE f.is_weights"
        )
    )
    found: dict[int, dict[str, dict[str, object]]] = {}
    for version, path, raw in rows:
        tensors = json.loads(bytes(raw)[8:])
        tensors.pop("__metadata__", None)
        found.setdefault(version, {})[path] = tensors
    return found


def _offers(headers: dict[str, dict[str, object]]) -> list[int]:
    there = Counter(name for tensors in headers.values() for name in tensors)
    keys = set()
    for path, tensors in headers.items():
        for name, tensor in tensors.items():
            assert isinstance(tensor, dict)  # noqa: S101
            if tensor["dtype"] in _PATCHABLE:
                keys.add(_key(name, tensor["shape"], path))
                keys |= {_key(name, tensor["shape"])} if there[name] == 1 else set()
    return sorted(keys)


def _key(name: str, shape: list[int], path: str = "") -> int:
    text = "\0".join((path, name, *map(str, shape)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


def _record(
    database: sa.Connection,
    insert: str,
    update: str,
    version: int,
    values: dict[str, object],
) -> None:
    """Insert the row unless it is there, and point the version at it."""
    named = list(values.values())
    text = repr(named if len(named) > 1 else named[0])
    digest = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    database.execute(sa.text(insert + " ON CONFLICT DO NOTHING"), {"digest": digest, **values})
    database.execute(sa.text(update), {"digest": digest, "version": version})

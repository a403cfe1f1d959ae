"""Operations: long work as its user sees it; and the workers that carry it out."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from service.db.declarative import Now, Table


class Operation(Table):
    """One piece of long work."""

    __tablename__ = "operations"
    __table_args__ = (
        Index("ix_operations_created_at_id", "created_at", "id"),
        Index(
            "ix_operations_open",
            "queue",
            postgresql_where=text("state in ('queued', 'running')"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    """`extract`, `build` or `verify`."""
    queue: Mapped[str]
    state: Mapped[str]
    progress: Mapped[float]
    message: Mapped[str]
    """What it is doing, for people."""
    subject: Mapped[str]
    """What it is about, for people: a patch, a recipe."""
    request: Mapped[dict[str, Any]] = mapped_column(JSONB)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    problem: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    attempt: Mapped[int]
    """The fencing token: only the current attempt may write."""
    cancel_requested: Mapped[bool]
    worker: Mapped[str | None]
    created_by: Mapped[str]
    created_at: Mapped[Now]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class Worker(Table):
    """A worker process, and when it was last heard of."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    queues: Mapped[list[str]] = mapped_column(ARRAY(Text))
    device: Mapped[str]
    started_at: Mapped[Now]
    seen_at: Mapped[Now]


class IdempotencyKey(Table):
    """A request that was answered with an operation, so that a repeat finds it again."""

    __tablename__ = "idempotency_keys"

    principal: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    operation_id: Mapped[str]
    created_at: Mapped[Now]

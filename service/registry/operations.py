"""Long work as its user sees it: asked for, carried out in fenced attempts, ended once.

    queued ──begin──▶ running ──succeed──▶ succeeded
       │                 │ ├────fail─────▶ failed
       └─────cancel──────┴─┴────cancel───▶ cancelled

Each `begin` raises the attempt number; a write that carries an older number is refused, so a worker
that was taken for dead cannot overwrite what its successor does.
"""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import rfc8785
from sqlalchemy import delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service import errors, queue
from service.db.tables.builds import BUILDING, EXPIRED, Build
from service.db.tables.operations import IdempotencyKey, Operation, Worker
from service.registry import events
from service.registry.access import Principal
from service.schemas.operations import Scope, State

MAX_ATTEMPTS: Final = 3
OPEN: Final = (State.QUEUED.value, State.RUNNING.value)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may wait, and when a worker counts as dead."""

    queued: int = 1000
    stalled_after: timedelta = timedelta(seconds=30)


def request(
    session: Session,
    kind: str,
    subject: str,
    body: Mapping[str, Any],
    *,
    by: Principal,
    on: str,
    limits: Limits,
    alone: str | None = None,
) -> Operation:
    """Record an operation and queue its job on queue `on`, both in the caller's transaction.

    Of the operations with one text for `alone` only one is carried out at a time. Raises
    `QueueFull`.
    """
    waiting = session.scalar(
        select(func.count()).select_from(Operation).where(Operation.state == State.QUEUED.value)
    )
    if waiting is not None and waiting >= limits.queued:
        raise errors.QueueFull(waiting)
    operation = Operation(
        id=str(uuid.uuid4()),
        kind=kind,
        queue=on,
        state=State.QUEUED.value,
        progress=0.0,
        message="waiting for a worker",
        subject=subject,
        request=dict(body),
        attempt=0,
        cancel_requested=False,
        created_by=by.id,
    )
    session.add(operation)
    session.flush()
    queue.defer(session, on, operation.id, lock=alone)
    events.announce(session, events.of_operation(operation.id))
    return operation


def find(session: Session, operation_id: str) -> Operation:
    """The operation; raises `ThingNotFound`."""
    operation = session.get(Operation, operation_id)
    if operation is None:
        raise errors.ThingNotFound("operation", operation_id)
    return operation


def listed(
    session: Session,
    *,
    after: tuple[datetime, str] | None,
    limit: int,
    state: State | None = None,
) -> Sequence[Operation]:
    """Some operations, newest first, behind the one of (`created_at`, `id`)."""
    query = (
        select(Operation).order_by(Operation.created_at.desc(), Operation.id.desc()).limit(limit)
    )
    if state is not None:
        query = query.where(Operation.state == state.value)
    if after is not None:
        query = query.where(tuple_(Operation.created_at, Operation.id) < after)
    return session.scalars(query).all()


# ── an attempt, as the worker sees it ────────────────────────────────────────────────────────


def begin(session: Session, operation_id: str, *, worker: str) -> Operation | None:
    """Begin the next attempt; None where the operation has ended or is given up.

    An operation that was begun `MAX_ATTEMPTS` times and never ended killed its worker each time: it
    fails for good here.
    """
    operation = session.get(Operation, operation_id, with_for_update=True)
    if operation is None or State(operation.state).ended:
        return None
    if operation.cancel_requested:
        _end(session, operation, State.CANCELLED)
        return None
    if operation.attempt >= MAX_ATTEMPTS:
        last = f"worker {operation.worker} went silent at {operation.progress:.0%}"
        died = errors.WorkerDied(operation.attempt, operation.message or last)
        _end(session, operation, State.FAILED, problem=problem_of(died))
        return None
    operation.attempt += 1
    operation.state = State.RUNNING.value
    operation.progress = 0.0
    operation.message = "started"
    operation.worker = worker
    operation.started_at = func.now()
    session.flush()
    events.announce(session, events.of_operation(operation_id))
    return operation


def report(
    session: Session, operation_id: str, attempt: int, *, progress: float, message: str
) -> bool:
    """Note how far an attempt is; answers whether it should stop because it was cancelled.

    Raises `AttemptSuperseded`.
    """
    row = session.execute(
        update(Operation)
        .where(
            Operation.id == operation_id,
            Operation.attempt == attempt,
            Operation.state == State.RUNNING.value,
        )
        .values(progress=min(max(progress, 0.0), 1.0), message=message)
        .returning(Operation.cancel_requested)
    ).one_or_none()
    if row is None:
        raise errors.AttemptSuperseded(operation_id, attempt)
    events.announce(session, events.of_operation(operation_id))
    return bool(row[0])


def hold(session: Session, operation_id: str, attempt: int) -> Operation:
    """Lock the operation for the recording of its result; raises `AttemptSuperseded`."""
    operation = session.get(Operation, operation_id, with_for_update=True, populate_existing=True)
    if operation is None or operation.attempt != attempt or operation.state != State.RUNNING.value:
        raise errors.AttemptSuperseded(operation_id, attempt)
    return operation


def succeed(session: Session, operation: Operation, result: Mapping[str, Any]) -> None:
    """End a held operation with its result."""
    operation.progress = 1.0
    _end(session, operation, State.SUCCEEDED, result=dict(result))


def fail(session: Session, operation: Operation, problem: Mapping[str, Any]) -> None:
    """End a held operation with the problem that stopped it."""
    _end(session, operation, State.FAILED, problem=dict(problem))


def stop(session: Session, operation: Operation) -> None:
    """End a held operation because it was cancelled."""
    _end(session, operation, State.CANCELLED)


def requeue(session: Session, operation: Operation, reason: str) -> None:
    """Let a held operation wait for its next attempt; the job is queued by whoever calls."""
    operation.state = State.QUEUED.value
    operation.progress = 0.0
    operation.message = reason
    operation.worker = None
    session.flush()
    events.announce(session, events.of_operation(operation.id))


def give_back(session: Session, operation: Operation) -> None:
    """Queue a held operation as if its attempt had never been: the job is not to blame.

    The number may be given out again: whoever held it has nothing left to write.
    """
    operation.attempt -= 1
    requeue(session, operation, "waiting for a worker")


def check_own(operation: Operation, by: Principal) -> None:
    """Check that a caller bound to some namespaces asked for this itself; raises `ScopeMissing`."""
    if by.namespace_pattern is not None and operation.created_by != by.id:
        raise errors.ScopeMissing(Scope.PUBLISH.value, operation.subject.partition("/")[0])


def cancel(session: Session, operation_id: str) -> Operation:
    """Ask for an operation to end: at once while queued, within seconds while running.

    Raises `ThingNotFound` and `OperationEnded`.
    """
    operation = session.get(Operation, operation_id, with_for_update=True)
    if operation is None:
        raise errors.ThingNotFound("operation", operation_id)
    if State(operation.state).ended:
        raise errors.OperationEnded(operation_id, operation.state)
    operation.cancel_requested = True
    if operation.state == State.QUEUED.value:
        _end(session, operation, State.CANCELLED)
    session.flush()
    events.announce(session, events.of_operation(operation_id))
    return operation


def _end(
    session: Session,
    operation: Operation,
    state: State,
    *,
    result: dict[str, Any] | None = None,
    problem: dict[str, Any] | None = None,
) -> None:
    operation.state = state.value
    operation.message = ""
    operation.result = result
    operation.problem = problem
    operation.ended_at = func.now()
    session.flush()
    session.refresh(operation)
    if state is not State.SUCCEEDED:
        # Here, for not every end passes by whoever knows what a build is: a build that was not made
        # must not look as if it were under way, nor hold on to its base for ever.
        session.execute(
            update(Build)
            .where(Build.operation_id == operation.id, Build.state == BUILDING)
            .values(state=EXPIRED)
        )
    events.announce(session, events.of_operation(operation.id))
    events.announce(session, events.of_end(operation.id))


def problem_of(error: errors.PatchbayError) -> dict[str, Any]:
    """How an error stands in an operation's record."""
    return {
        **error.fields,
        "type": f"/problems/{error.slug}",
        "title": error.title,
        "detail": str(error),
    }


# ── repeated requests ────────────────────────────────────────────────────────────────────────


def earlier(
    session: Session, key: str, body: Mapping[str, Any], *, by: Principal
) -> Operation | None:
    """The operation that this Idempotency-Key was answered with; raises `KeyReused`.

    Waits for a request of the same key that is under way.
    """
    number = int.from_bytes(hashlib.sha256(f"{by.id}\n{key}".encode()).digest()[:8], signed=True)
    session.execute(select(func.pg_advisory_xact_lock(number)))
    row = session.get(IdempotencyKey, (by.id, key))
    if row is None:
        return None
    if row.fingerprint != _fingerprint(body):
        raise errors.KeyReused(key)
    return find(session, row.operation_id)


def remember(
    session: Session, key: str, body: Mapping[str, Any], operation: Operation, *, by: Principal
) -> None:
    """Note which operation a request with this Idempotency-Key was answered with."""
    session.add(
        IdempotencyKey(
            principal=by.id,
            key=key,
            fingerprint=_fingerprint(body),
            operation_id=operation.id,
        )
    )
    session.flush()


def _fingerprint(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(rfc8785.dumps(dict(body))).hexdigest()


# ── workers ──────────────────────────────────────────────────────────────────────────────────


def worker_seen(session: Session, name: str, queues: Sequence[str], device: str) -> None:
    """Note that a worker is alive."""
    row = {"name": name, "queues": list(queues), "device": device}
    session.execute(
        insert(Worker)
        .values(**row)
        .on_conflict_do_update(index_elements=["name"], set_={**row, "seen_at": func.now()})
    )


def worker_gone(session: Session, name: str) -> None:
    """Forget a worker that ended in good order."""
    worker = session.get(Worker, name)
    if worker is not None:
        session.delete(worker)


def forget_workers(session: Session, *, silent_for: timedelta) -> None:
    """Forget workers that were killed: no longer heard of, and never said goodbye."""
    session.execute(delete(Worker).where(Worker.seen_at < func.now() - silent_for))


def live_workers(session: Session, limits: Limits) -> Sequence[Worker]:
    """The workers that were heard of lately."""
    alive = Worker.seen_at > func.now() - limits.stalled_after
    return session.scalars(select(Worker).where(alive).order_by(Worker.name)).all()


def require_worker(session: Session, on: str, limits: Limits) -> None:
    """Check that somebody serves queue `on`; raises `NoWorker`."""
    if not any(on in worker.queues for worker in live_workers(session, limits)):
        raise errors.NoWorker(on)


def counts(session: Session) -> list[tuple[str, str, int]]:
    """How many operations are open: (queue, state, number)."""
    query = (
        select(Operation.queue, Operation.state, func.count())
        .where(Operation.state.in_(OPEN))
        .group_by(Operation.queue, Operation.state)
    )
    return [(on, state, number) for on, state, number in session.execute(query)]

"""Long work: its queue, its workers, its end."""

from dataclasses import dataclass

from service.errors.tree import Broken, Busy, Conflict, Invalid, Stale, Unavailable


@dataclass(eq=False)
class NoWorker(Unavailable):
    """No live worker serves the queue."""

    queue: str
    slug = "no-worker"

    def __str__(self) -> str:
        return f"no live worker serves queue {self.queue!r}; start one with `patchbay worker`"


@dataclass(eq=False)
class QueueFull(Busy):
    """Too many operations are queued."""

    queued: int
    slug = "queue-full"

    def __str__(self) -> str:
        return f"{self.queued} operations are queued already; try again later"


@dataclass(eq=False)
class WorkerDied(Broken):
    """The worker's process died at this operation, again and again."""

    attempts: int
    reason: str
    slug = "worker-died"

    def __str__(self) -> str:
        return (
            f"the worker died {self.attempts} times at this operation (last: {self.reason}); "
            "it is not tried again"
        )


@dataclass(eq=False)
class OperationFailed(Broken):
    """The operation failed for a reason that is not the caller's."""

    reason: str
    slug = "operation-failed"

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class OperationEnded(Conflict):
    """The operation has ended and cannot be cancelled."""

    operation: str
    state: str
    slug = "operation-ended"

    def __str__(self) -> str:
        return f"operation {self.operation} has {self.state} already"


@dataclass(eq=False)
class AttemptSuperseded(Stale):
    """Another attempt at the operation has begun; this one's result is dropped."""

    operation: str
    attempt: int
    slug = "attempt-superseded"

    def __str__(self) -> str:
        return f"attempt {self.attempt} at operation {self.operation} is no longer the current one"


@dataclass(eq=False)
class KeyReused(Invalid):
    """An Idempotency-Key was used before with another request."""

    key: str
    slug = "idempotency-key-reused"

    def __str__(self) -> str:
        return f"Idempotency-Key {self.key!r} was used with another request; use a new one"

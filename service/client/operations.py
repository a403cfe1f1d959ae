"""Long work: look at it, wait for it, cancel it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import httpx2
from pydantic import ValidationError

from service.client.problem import OperationProblem, ServiceProblem
from service.client.transport import Transport
from service.schemas.operations import OperationView, State

Watch = Callable[[OperationView], None]
"""Is told every state of an operation that is seen."""

AWAY: Final = frozenset({0, 502, 503, 504})
"""What a service that is being restarted answers, or its proxy."""

_POLL_S = 0.5
_PATIENCE_S = 60.0
_QUIET_S = 60.0  # the service sends a comment more often than this


def unwatched(operation: OperationView) -> None:
    """Watch nothing."""


@dataclass(frozen=True, slots=True)
class Operations:
    """The service's operations."""

    transport: Transport

    def listed(self, state: State | None = None) -> Iterator[OperationView]:
        """Every operation, newest first."""
        return self.transport.pages("/v1/operations", OperationView, {"state": state})

    def get(self, operation_id: str) -> OperationView:
        """One operation."""
        return self.transport.get(_path(operation_id), OperationView)

    def cancel(self, operation_id: str) -> OperationView:
        """Ask for an operation to end."""
        return self.transport.ask("POST", f"{_path(operation_id)}/cancel", OperationView)

    def wait(
        self, operation_id: str, *, watch: Watch = unwatched, timeout_s: float | None = None
    ) -> OperationView:
        """Wait until an operation has ended well; answers it with its result.

        Raises `OperationProblem` where it failed or was cancelled, `TimeoutError` after
        `timeout_s`, and `ServiceProblem`.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for operation in self.follow(operation_id):
            watch(operation)
            if operation.state.ended:
                if operation.state is not State.SUCCEEDED:
                    raise OperationProblem(operation)
                return operation
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"operation {operation_id} is {operation.state} still")
        raise AssertionError  # `follow` ends with an ended operation only

    def follow(self, operation_id: str) -> Iterator[OperationView]:
        """The states of an operation as they come, until it has ended.

        By server-sent events; by asking again and again where they do not get through. A service
        that is away for less than a minute is waited for.
        """
        operation = self.get(operation_id)
        yield operation
        while not operation.state.ended:
            for heard in self._events(operation_id):
                operation = heard
                yield operation
                if operation.state.ended:
                    return
            self.transport.sleep(_POLL_S)
            operation = self._patiently(operation_id)
            yield operation

    def _patiently(self, operation_id: str) -> OperationView:
        until = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return self.get(operation_id)
            except ServiceProblem as problem:
                if problem.status not in AWAY or time.monotonic() > until:
                    raise
                self.transport.sleep(_POLL_S)

    def _events(self, operation_id: str) -> Iterator[OperationView]:
        """What the event stream tells until it ends or breaks."""
        try:
            with self.transport.stream(
                "GET",
                f"{_path(operation_id)}/events",
                headers={"Accept": "text/event-stream", "Cache-Control": "no-store"},
                timeout=httpx2.Timeout(_QUIET_S),
            ) as response:
                for event in httpx2.EventSource(response):
                    if event.data:
                        yield OperationView.model_validate_json(event.data)
        except (httpx2.TransportError, ServiceProblem, ValidationError):
            return  # asking for the operation itself tells what is wrong, if anything is


def _path(operation_id: str) -> str:
    return f"/v1/operations/{quote(operation_id, safe='')}"

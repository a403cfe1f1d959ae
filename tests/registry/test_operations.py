import pytest
from sqlalchemy.orm import Session

from service import errors, queue
from service.db.tables.operations import Operation
from service.registry import operations
from service.registry.access import OWNER, Principal
from service.registry.operations import MAX_ATTEMPTS, Limits
from service.schemas.operations import Scope


@pytest.fixture
def operation(session: Session) -> Operation:
    return operations.request(
        session, "build", "a recipe", {}, by=OWNER, on=queue.CPU, limits=Limits()
    )


def test_only_the_current_attempt_writes(session: Session, operation: Operation) -> None:
    operations.begin(session, operation.id, worker="a")
    operations.begin(session, operation.id, worker="b")

    with pytest.raises(errors.AttemptSuperseded):
        operations.report(session, operation.id, 1, progress=0.5, message="late")
    with pytest.raises(errors.AttemptSuperseded):
        operations.hold(session, operation.id, 1)

    held = operations.hold(session, operation.id, 2)
    operations.succeed(session, held, {"done": True})
    assert (held.state, held.result, held.progress) == ("succeeded", {"done": True}, 1.0)


def test_an_operation_that_kills_its_workers_fails_for_good(
    session: Session, operation: Operation
) -> None:
    for _ in range(MAX_ATTEMPTS):
        operations.begin(session, operation.id, worker="w")

    given_up = operations.begin(session, operation.id, worker="w")

    assert given_up is None
    assert operation.state == "failed"
    assert operation.problem is not None
    assert operation.problem["type"] == "/problems/worker-died"


def test_a_queued_operation_is_cancelled_at_once(session: Session, operation: Operation) -> None:
    operations.cancel(session, operation.id)

    assert operation.state == "cancelled"
    assert operations.begin(session, operation.id, worker="w") is None
    with pytest.raises(errors.OperationEnded):
        operations.cancel(session, operation.id)


def test_a_token_of_some_namespaces_ends_only_what_it_asked_for(
    session: Session, operation: Operation
) -> None:
    bound = Principal("ci", frozenset({Scope.PUBLISH}), "vision")
    own = operations.request(session, "build", "x", {}, by=bound, on=queue.CPU, limits=Limits())

    operations.check_own(own, bound)
    operations.check_own(operation, OWNER)

    with pytest.raises(errors.ScopeMissing):
        operations.check_own(operation, bound)


def test_a_running_operation_is_told_to_stop(session: Session, operation: Operation) -> None:
    operations.begin(session, operation.id, worker="w")
    operations.cancel(session, operation.id)

    stop = operations.report(session, operation.id, 1, progress=2.0, message="half")

    assert stop
    session.refresh(operation)
    assert operation.progress == 1.0


def test_a_repeated_request_finds_its_operation(session: Session, operation: Operation) -> None:
    assert operations.earlier(session, "k", {"a": 1}, by=OWNER) is None
    operations.remember(session, "k", {"a": 1}, operation, by=OWNER)

    found = operations.earlier(session, "k", {"a": 1}, by=OWNER)

    assert found is not None
    assert found.id == operation.id
    with pytest.raises(errors.KeyReused):
        operations.earlier(session, "k", {"a": 2}, by=OWNER)

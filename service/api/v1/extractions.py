"""Extractions: patches made from pairs of models, one at a time or several at once."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from sqlalchemy.orm import Session

from service import errors
from service.api.v1 import operations as operation_routes
from service.api.v1.lines import NOT_THERE
from service.db.tables.operations import Operation
from service.http.deps import DbSession, Limits, PatchPath, Publisher
from service.http.problems import answers
from service.names import patch_name
from service.registry import extractions, operations
from service.registry.access import Principal
from service.schemas.operations import OperationView, Scope
from service.schemas.patches import RequestExtraction, RequestExtractions

router = APIRouter(tags=["patches"])

Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)]

_ANSWERS = answers(
    *NOT_THERE,
    errors.BadReference,
    errors.NothingToExtract,
    errors.QueueFull,
    errors.KeyReused,
)


@router.post(
    "/patches/{namespace}/{name}/extractions",
    name="extract",
    status_code=202,
    response_model=OperationView,
    responses=_ANSWERS,
)
def extract(
    name: PatchPath,
    body: RequestExtraction,
    session: DbSession,
    caller: Publisher,
    limits: Limits,
    idempotency_key: Key = None,
) -> Response:
    """Extract a patch from a pair of models; with `dry_run` only measure what it would be.

    A dry run's result says in `summary` what each choice of `layers` would keep: kernels,
    parameters, energy, and the patch file's size by quality; and which kept kernel is the
    `quietest` beside the rounding of its dtypes. It needs no patch of that name. A request with an
    `Idempotency-Key` that was sent before is answered with the same operation.
    """
    caller.require(Scope.PUBLISH, name.namespace)
    asked = {"patch": name.key, **body.model_dump(mode="json")}
    return _once(
        session,
        idempotency_key,
        asked,
        caller,
        lambda: extractions.request(session, name, body, by=caller, limits=limits),
    )


@router.post(
    "/extractions",
    name="extract_many",
    status_code=202,
    response_model=OperationView,
    responses={**_ANSWERS, **answers(errors.BadName)},
)
def extract_many(
    body: RequestExtractions,
    session: DbSession,
    caller: Publisher,
    limits: Limits,
    idempotency_key: Key = None,
) -> Response:
    """Extract a patch from each of several robust models, which share their clean one.

    One operation reads the clean model and the origin once for all; its result lists the
    `extractions`. All versions are published together, or none.
    """
    robust = {patch_name(name): text for name, text in body.robust.items()}
    if len({name.key for name in robust}) < len(body.robust):
        raise errors.BadRequest("robust names a patch twice")
    for name in robust:
        caller.require(Scope.PUBLISH, name.namespace)
    return _once(
        session,
        idempotency_key,
        body.model_dump(mode="json"),
        caller,
        lambda: extractions.request_many(session, robust, body, by=caller, limits=limits),
    )


def _once(
    session: Session,
    key: str | None,
    asked: Mapping[str, Any],
    caller: Principal,
    ask: Callable[[], Operation],
) -> Response:
    """Answer with the operation that was asked for, or that the same key was answered with."""
    if key is not None:
        earlier = operations.earlier(session, key, asked, by=caller)
        if earlier is not None:
            return operation_routes.accepted(earlier)
    operation = ask()
    if key is not None:
        operations.remember(session, key, asked, operation, by=caller)
    session.refresh(operation)
    return operation_routes.accepted(operation)

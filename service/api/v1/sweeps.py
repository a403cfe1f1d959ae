"""Sweeps: many recipes on one base, built in one walk over its tensors."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from service import errors
from service.api.v1 import operations as operation_routes
from service.api.v1 import views
from service.api.v1.recipes import UNRESOLVED
from service.http.deps import Config, DbSession, Reader
from service.http.problems import answers
from service.registry import recipes, sweeps
from service.schemas.operations import OperationView, Scope
from service.schemas.sweeps import RequestSweep, SweepView

router = APIRouter(prefix="/sweeps", tags=["builds"])


@router.post(
    "",
    name="sweep",
    response_model=SweepView,
    responses={
        202: {"description": "It is under way.", "model": OperationView},
        **answers(*UNRESOLVED, errors.SeveralBases, errors.NoWorker, errors.QueueFull),
    },
)
def request(body: RequestSweep, session: DbSession, parts: Config, caller: Reader) -> Response:
    """Ask for many recipes on one base: 200 with their builds if all are ready, else 202.

    The operation's result lists the builds, and the recipes that could not be carried out.
    """
    if caller.is_anonymous and not parts.anonymous_build:
        raise errors.TokenMissing(Scope.READ)
    wanted = recipes.resolve_all(session, body.recipes, require=body.require)
    found, operation = sweeps.request(session, wanted, by=caller, limits=parts.limits)
    if operation is not None:
        session.refresh(operation)
        return operation_routes.accepted(operation)
    shown = SweepView(builds=[views.build(build) for build in found])
    return JSONResponse(shown.model_dump(mode="json"))

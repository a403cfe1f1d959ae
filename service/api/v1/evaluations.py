"""Evaluation results: published with a patch version, searched over the whole catalogue."""

from math import sqrt
from typing import Annotated

from fastapi import APIRouter, Query, Response

from service import errors
from service.api.v1.lines import NOT_THERE
from service.api.v1.patches import NumberPath
from service.db.tables.evaluations import Evaluation
from service.http.deps import DbSession, PatchPath, Publisher, Reader
from service.http.paging import Pages
from service.http.problems import answers
from service.names import model_reference, patch_reference, version_number
from service.registry import evaluations, models, patches
from service.registry.evaluations import Search
from service.schemas.evaluations import EvaluationView, PublishEvaluations
from service.schemas.operations import Scope
from service.schemas.wire import Page

router = APIRouter(tags=["evaluations"])


@router.post(
    "/patches/{namespace}/{name}/versions/{number}/evaluations",
    name="publish",
    status_code=201,
    responses={
        200: {"description": "All of it is known already.", "model": list[EvaluationView]},
        **answers(*NOT_THERE, errors.BadReference, errors.DoesNotFit, errors.ResultsDiffer),
    },
)
def publish(
    name: PatchPath,
    number: NumberPath,
    body: PublishEvaluations,
    session: DbSession,
    caller: Publisher,
    response: Response,
) -> list[EvaluationView]:
    """Publish what was measured of a patch version on a base: all of the results, or none."""
    caller.require(Scope.PUBLISH, name.namespace)
    patch = patches.resolve(session, name, number)
    base = models.resolve(session, model_reference(body.base))
    rows, new = evaluations.publish(session, patch, base, body.results, by=caller)
    response.status_code = 201 if new else 200
    return [_view(row) for row in rows]


@router.get("/evaluations", name="list", responses=answers(*NOT_THERE, errors.BadReference))
def listed(
    session: DbSession,
    caller: Reader,
    paging: Pages,
    patch: Annotated[
        str | None,
        Query(max_length=200, examples=["vision/fog@2"], description="Any version, or one."),
    ] = None,
    base: Annotated[str | None, Query(max_length=200, examples=["vision/resnet50@3"])] = None,
    data_set: Annotated[str | None, Query(max_length=63)] = None,
    corruption: Annotated[str | None, Query(max_length=63)] = None,
) -> Page[EvaluationView]:
    """List results, newest first."""
    of = patch_reference(patch) if patch else None
    wanted = Search(
        patch=of.name if of else None,
        version=version_number(of.revision) if of and of.revision else None,
        base=models.resolve(session, model_reference(base)) if base else None,
        data_set=data_set,
        corruption=corruption,
    )
    rows = evaluations.listed(session, wanted, before=paging.after(int), limit=paging.fetch)
    return paging.page(rows, key=lambda row: row.id, view=_view)


def _view(row: Evaluation) -> EvaluationView:
    return EvaluationView(
        id=row.id,
        patch=row.patch_version.reference,
        base=row.base.reference,
        data_set=row.data_set,
        corruption=row.corruption,
        severity=None if row.severity is None else float(row.severity),
        scale=row.scale,
        accuracy=row.accuracy,
        standard_error=sqrt(row.accuracy * (1 - row.accuracy) / row.n),
        n=row.n,
        seed=row.seed,
        created_by=row.created_by,
        created_at=row.created_at,
    )

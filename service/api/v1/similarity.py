"""Which patches are alike: neighbours of one, a matrix of several, the label of an unknown one."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlalchemy.orm import Session

from service import errors, queue
from service.api.v1 import operations as operation_routes
from service.api.v1.lines import NOT_THERE
from service.api.v1.patches import NumberPath
from service.db.tables.operations import Operation
from service.db.tables.patches import PatchVersion
from service.db.tables.similarity import Neighbour
from service.http.deps import Config, DbSession, Parts, PatchPath, Reader
from service.http.paging import Pages
from service.http.problems import answers
from service.registry import comparisons, identifications, operations, patches, similarity
from service.registry.access import Principal
from service.registry.similarity import Sign
from service.schemas.operations import OperationView, Scope
from service.schemas.similarity import CompareSet, Identify, NeighbourView, SetView
from service.schemas.wire import Page

router = APIRouter(prefix="/patches", tags=["patches"])

STARTED = (errors.TokenMissing, errors.NoWorker, errors.QueueFull)
"""What having a worker compare may raise."""


def check_starter(caller: Principal, parts: Parts) -> None:
    """Check that the caller may start work; raises `TokenMissing`."""
    if caller.is_anonymous and not parts.anonymous_build:
        raise errors.TokenMissing(Scope.READ.value)


def accepted(session: Session, operation: Operation) -> Response:
    """Answer with an operation that was just asked for."""
    session.refresh(operation)
    return operation_routes.accepted(operation)


@router.get(
    "/{namespace}/{name}/versions/{number}/similar",
    name="similar",
    response_model=Page[NeighbourView],
    responses={
        202: {"description": "It is not measured yet.", "model": OperationView},
        **answers(*NOT_THERE, *STARTED),
    },
)
def similar(
    name: PatchPath,
    number: NumberPath,
    session: DbSession,
    parts: Config,
    caller: Reader,
    paging: Pages,
    label: Annotated[
        str | None, Query(max_length=63, description="Only patches with this label.")
    ] = None,
    sign: Annotated[Sign, Query(description="Of the cosine; negative: opposed.")] = "any",
) -> Page[NeighbourView] | Response:
    """List the versions that a version is most like, the surest first; 50 are kept.

    Ordered by how far from zero the cosine certainly is: exact for the nearest, two standard
    deviations off an estimate for the others. 202 where the version is not measured yet.
    """
    version = patches.resolve(session, name, number)
    if version.withdrawn_at is None and not similarity.is_measured(session, version):
        check_starter(caller, parts)
        operations.require_worker(session, queue.CPU, parts.limits)
        return accepted(
            session, similarity.bring_up_to_date(session, by=caller.id, first=version.id)
        )
    rows = similarity.neighbours(
        session,
        version,
        label=label,
        sign=sign,
        after=paging.after(tuple[float, int]),
        limit=paging.fetch,
    )
    return paging.page(
        rows,
        key=lambda row: (row[0].strength, row[0].neighbour_id),
        view=lambda row: _neighbour(version, *row),
    )


def _neighbour(version: PatchVersion, found: Neighbour, other: PatchVersion) -> NeighbourView:
    return NeighbourView(
        patch=other.patch.full_name,
        version=other.number,
        reference=other.reference,
        labels=other.patch.labels,
        cosine=found.cosine,
        exact=found.error == 0,
        error=found.error,
        own_share=found.own_share,
        other_share=found.other_share,
        same_base=other.clean_digest is not None and other.clean_digest == version.clean_digest,
    )


@router.post(
    "/similarity",
    name="compare",
    response_model=SetView,
    responses={
        202: {"description": "A worker compares them.", "model": OperationView},
        **answers(
            errors.BadReference,
            errors.BadName,
            errors.ThingNotFound,
            errors.ThingDeleted,
            *STARTED,
        ),
    },
)
def compare(
    body: CompareSet, session: DbSession, parts: Config, caller: Reader
) -> SetView | Response:
    """Compare patches each with each, exactly: 200 if this set was compared before, else 202."""
    versions = comparisons.chosen(session, body.patches)
    known = comparisons.find(session, versions)
    if known is not None:
        return comparisons.shown(versions, known)
    check_starter(caller, parts)
    operation = comparisons.request(session, versions, by=caller, limits=parts.limits)
    return accepted(session, operation)


@router.post(
    "/identify",
    name="identify",
    status_code=202,
    response_model=OperationView,
    responses=answers(
        errors.BadReference,
        errors.BadName,
        errors.BlobNotFound,
        errors.ThingNotFound,
        errors.ThingDeleted,
        errors.NothingToExtract,
        *STARTED,
    ),
)
def identify(body: Identify, session: DbSession, parts: Config, caller: Reader) -> Response:
    """Say which corruption an unknown patch file, or a pair of models, is about.

    The operation's result ranks labels and patches, and says whether to believe it. A patch without
    labels stands for its own name. Nothing is published.
    """
    check_starter(caller, parts)
    operation = identifications.request(session, body, by=caller, limits=parts.limits)
    return accepted(session, operation)

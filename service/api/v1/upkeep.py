"""Keeping the store in order: collections and audits, for administrators."""

from fastapi import APIRouter, Response

from service import errors
from service.api.v1 import operations as operation_routes
from service.http.deps import Admin, DbSession, Limits
from service.http.problems import answers
from service.names import Digest
from service.registry import audits, collection
from service.schemas.operations import OperationView
from service.schemas.upkeep import RequestAudit, RequestCollection

router = APIRouter(tags=["service"])


@router.post(
    "/collections",
    name="collect",
    status_code=202,
    response_model=OperationView,
    responses=answers(errors.NoWorker, errors.QueueFull),
)
def collect(body: RequestCollection, session: DbSession, limits: Limits, caller: Admin) -> Response:
    """Remove blobs that nothing needs: no version, build, upload or operation."""
    operation = collection.request(
        session, older_than_s=body.older_than_s, dry_run=body.dry_run, by=caller, limits=limits
    )
    session.refresh(operation)
    return operation_routes.accepted(operation)


@router.post(
    "/audits",
    name="audit",
    status_code=202,
    response_model=OperationView,
    responses=answers(errors.BlobNotFound, errors.NoWorker, errors.QueueFull),
)
def audit(body: RequestAudit, session: DbSession, limits: Limits, caller: Admin) -> Response:
    """Read blobs back against their digests, and mark what is damaged.

    A damaged blob is not handed out any more, nor built from, until it is uploaded again.
    """
    operation = audits.request(
        session,
        digests=[Digest(digest) for digest in body.digests],
        bytes_per_s=body.bytes_per_s,
        by=caller,
        limits=limits,
    )
    session.refresh(operation)
    return operation_routes.accepted(operation)

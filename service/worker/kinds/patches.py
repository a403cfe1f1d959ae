"""Patch files made elsewhere: decoded and checked before their version is visible."""

from typing import Any, Final, cast

from sqlalchemy.orm import Session

from service.compute.jobs import VerifyJob, VerifyMade
from service.db.tables.operations import Operation
from service.registry import patches, similarity
from service.worker.kinds.kind import Kind, signature_of


def _prepare(session: Session, operation: Operation) -> VerifyJob:
    _ = session  # everything stands in the request
    return VerifyJob(*patches.verification(operation.request))


def _record(session: Session, operation: Operation, made: Any) -> dict[str, Any]:
    done = cast("VerifyMade", made)
    digest, size_bytes = patches.verification(operation.request)
    signature = signature_of(done.signature, digest, size_bytes)
    result = patches.record_verified(session, operation, signature)
    similarity.bring_up_to_date(session, by=operation.created_by)
    return result


VERIFICATION: Final = Kind(_prepare, _record)

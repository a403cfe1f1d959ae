"""Extractions: a pair of models becomes a patch file and its profile."""

from typing import Any, Final, cast

from sqlalchemy.orm import Session

from service.compute.jobs import ExtractJob, ExtractMade
from service.db.tables.operations import Operation
from service.registry import extractions, similarity
from service.worker.kinds.kind import Kind, model_input, signature_of


def _prepare(session: Session, operation: Operation) -> ExtractJob:
    found = extractions.inputs(session, operation.request)
    return ExtractJob(
        clean=model_input(found.clean),
        robust=model_input(found.robust),
        origin=model_input(found.origin) if found.origin else None,
        layers=found.layers,
        projection=found.projection,
        quality=found.quality,
        dry_run=found.dry_run,
        forward_order=found.forward_order,
        recorded_order=found.recorded_order,
    )


def _record(session: Session, operation: Operation, made: Any) -> dict[str, Any]:
    done = cast("ExtractMade", made)
    signature = None
    if done.patch is not None and done.signature is not None:
        signature = signature_of(done.signature, done.patch.digest, done.patch.size_bytes)
    outcome = extractions.Made(
        signature, done.profile.digest, done.profile.size_bytes, dict(done.summary)
    )
    result = extractions.record(session, operation, outcome)
    if signature is not None:
        similarity.bring_up_to_date(session, by=operation.created_by)
    return result


EXTRACTION: Final = Kind(_prepare, _record)

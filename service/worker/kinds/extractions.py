"""Extractions: each pair of models becomes a patch file and its profile."""

from typing import Any, Final, cast

from sqlalchemy.orm import Session

from service.compute.jobs import ExtractJob, ExtractMade, ExtractManyJob, ExtractManyMade
from service.db.tables.operations import Operation
from service.registry import extractions, similarity
from service.worker.kinds.kind import Kind, model_input, signature_of


def _prepare(session: Session, operation: Operation) -> ExtractManyJob:
    found = extractions.inputs(session, operation.request)
    robust, *further = map(model_input, found.robust.values())
    first = ExtractJob(
        clean=model_input(found.clean),
        robust=robust,
        origin=model_input(found.origin) if found.origin else None,
        layers=found.layers,
        projection=found.projection,
        quality=found.quality,
        dry_run=found.dry_run,
        forward_order=found.forward_order,
        recorded_order=found.recorded_order,
    )
    return ExtractManyJob(first, tuple(further))


def _record(session: Session, operation: Operation, made: Any) -> dict[str, Any]:
    outcomes = [_outcome(one) for one in cast("ExtractManyMade", made).extractions]
    result = extractions.record(session, operation, outcomes)
    if any(outcome.signature is not None for outcome in outcomes):
        similarity.bring_up_to_date(session, by=operation.created_by)
    return result


def _outcome(made: ExtractMade) -> extractions.Made:
    signature = None
    if made.patch is not None and made.signature is not None:
        signature = signature_of(made.signature, made.patch.digest, made.patch.size_bytes)
    return extractions.Made(
        signature, made.profile.digest, made.profile.size_bytes, dict(made.summary)
    )


EXTRACTION: Final = Kind(_prepare, _record)

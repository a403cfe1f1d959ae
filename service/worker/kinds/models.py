"""Conversions: PyTorch checkpoints become the weight files of a model version."""

from typing import Any, Final, cast

from sqlalchemy.orm import Session

from service.compute.jobs import CheckpointInput, ConvertJob, ConvertMade, IndexInput
from service.db.tables.operations import Operation
from service.layout.header import parse
from service.registry import conversions
from service.worker.kinds.kind import Kind


def _prepare(session: Session, operation: Operation) -> ConvertJob:
    _ = session  # everything stands in the request
    checkpoints, indexes = conversions.inputs(operation.request)
    return ConvertJob(
        tuple(CheckpointInput(g.path, g.target, g.digest, g.size_bytes) for g in checkpoints),
        tuple(IndexInput(g.path, g.target, g.digest, g.size_bytes) for g in indexes),
    )


def _record(session: Session, operation: Operation, made: Any) -> dict[str, Any]:
    done = cast("ConvertMade", made)
    weights = [
        conversions.Weights(
            given=each.source,
            path=each.path,
            digest=each.file.digest,
            header=parse(each.header, each.file.size_bytes, each.path),
            order=each.order,
            tied=each.tied,
            left_out=each.left_out,
            guards=each.guards,
        )
        for each in done.weights
    ]
    indexes = [
        conversions.Index(each.path, each.file.digest, each.file.size_bytes)
        for each in done.indexes
    ]
    return conversions.record(session, operation, weights, indexes)


CONVERSION: Final = Kind(_prepare, _record)

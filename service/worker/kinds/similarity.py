"""Similarity: new signatures are measured, sets compared, unknown ones identified."""

from typing import Any, Final, cast

from sqlalchemy.orm import Session

from service.compute.jobs import (
    CompareJob,
    CompareMade,
    ExtractJob,
    IdentifyJob,
    IdentifyMade,
    IndexJob,
    IndexMade,
    KnownSignature,
    SignatureInput,
    SignatureMeasures,
)
from service.db.tables.operations import Operation
from service.names import Digest
from service.registry import comparisons, identifications, models, similarity
from service.worker.kinds.kind import Kind, model_input

UNKNOWN_QUALITY: Final = "high"
"""How a signature is packed that nobody keeps: near enough for a cosine, and small on the disk."""


def _known(session: Session) -> tuple[KnownSignature, ...]:
    return tuple(
        KnownSignature(
            SignatureInput(row.version_id, Digest(row.digest), row.size_bytes),
            SignatureMeasures(row.keys, row.energies, row.sketch, row.length),
            row.floor,
        )
        for row in similarity.known(session)
    )


# ── index ────────────────────────────────────────────────────────────────────────────────────


def _prepare_index(session: Session, operation: Operation) -> IndexJob:
    new = tuple(
        SignatureInput(row.version_id, Digest(row.digest), row.size_bytes)
        for row in similarity.unmeasured(session, operation.request)
    )
    return IndexJob(new, _known(session) if new else (), similarity.KEPT)


def _record_index(session: Session, operation: Operation, made: Any) -> dict[str, Any]:
    done = cast("IndexMade", made)
    measured: list[dict[str, Any]] = [
        {
            "version_id": number,
            "keys": each.keys,
            "energies": each.energies,
            "sketch": each.sketch,
            "length": each.length,
            "problem": None,
        }
        for number, each in done.measures.items()
    ]
    nothing = {"keys": b"", "energies": b"", "sketch": b"", "length": 0.0}
    measured += [
        {"version_id": number, **nothing, "problem": reason}
        for number, reason in done.unreadable.items()
    ]
    neighbours = [
        {
            "version_id": each.one,
            "neighbour_id": each.other,
            "cosine": each.cosine,
            "error": each.error,
            "own_share": each.own_share,
            "other_share": each.other_share,
            "strength": each.strength,
        }
        for each in done.likenesses
    ]
    return similarity.record(session, operation, measured, neighbours)


# ── sets ─────────────────────────────────────────────────────────────────────────────────────


def _prepare_comparison(session: Session, operation: Operation) -> CompareJob:
    _ = session  # everything stands in the request
    files = comparisons.inputs(operation.request)
    return CompareJob(tuple(SignatureInput(number, *file) for number, file in enumerate(files)))


def _record_comparison(session: Session, operation: Operation, made: Any) -> dict[str, Any]:
    return comparisons.record(session, operation, cast("CompareMade", made).comparison)


# ── identification ───────────────────────────────────────────────────────────────────────────


def _prepare_identification(session: Session, operation: Operation) -> IdentifyJob:
    file = identifications.blob(operation.request)
    if file is not None:
        return IdentifyJob(SignatureInput(0, *file), _known(session))
    found = identifications.pair(session, operation.request)
    origin = found.get("origin")
    unknown = ExtractJob(
        clean=model_input(found["clean"]),
        robust=model_input(found["robust"]),
        origin=model_input(origin) if origin else None,
        layers=operation.request["layers"],
        projection="auto",
        quality=UNKNOWN_QUALITY,
        dry_run=False,
        recorded_order=models.recorded_order([found["clean"], found["robust"], origin]),
    )
    return IdentifyJob(unknown, _known(session))


def _record_identification(session: Session, operation: Operation, made: Any) -> dict[str, Any]:
    likenesses = {
        each.other: {
            "cosine": each.cosine,
            "error": each.error,
            "own_share": each.own_share,
            "other_share": each.other_share,
        }
        for each in cast("IdentifyMade", made).likenesses
    }
    return identifications.record(session, operation, likenesses)


INDEXING: Final = Kind(_prepare_index, _record_index)
COMPARISON: Final = Kind(_prepare_comparison, _record_comparison)
IDENTIFICATION: Final = Kind(_prepare_identification, _record_identification)

"""Which corruption is this? An unknown patch file, or a pair of models, beside the catalogue."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from service import errors, queue
from service.db.tables.models import ModelVersion
from service.db.tables.operations import Operation
from service.db.tables.patches import Patch, PatchVersion
from service.db.tables.similarity import MeasuredSignature
from service.names import Digest, model_reference
from service.registry import blobs, models, operations, similarity
from service.registry.access import Principal
from service.schemas.similarity import IdentificationView, Identify, LabelRank, PatchRank
from service.tensors.judgement import Candidate, judge

IDENTIFY: Final = "identify"
SHOWN: Final = 20
SIDES: Final = ("clean", "robust", "origin")


def request(
    session: Session, body: Identify, *, by: Principal, limits: operations.Limits
) -> Operation:
    """Resolve what is to be identified, now, and queue the work.

    Raises `BlobNotFound`, `ThingNotFound`, `ThingDeleted`, `NothingToExtract`, `NoWorker`,
    `QueueFull`.
    """
    if body.blob is not None:
        blob = Digest(body.blob)
        size_bytes = blobs.sizes(session, [blob])[blob]
        subject, on = f"identify {blob[:19]}", queue.CPU
        asked: dict[str, Any] = {"blob": blob, "size_bytes": size_bytes}
    else:
        found = _pair(session, body)
        if found["clean"].weights_digest == found["robust"].weights_digest:
            raise errors.NothingToExtract("the clean and the robust model hold the same weights")
        exact = {side: version.reference for side, version in found.items()}
        subject, on = f"identify {exact['robust']} against {exact['clean']}", queue.GPU
        asked = {"layers": body.model_dump(mode="json")["layers"], **exact}
    operations.require_worker(session, on, limits)
    return operations.request(session, IDENTIFY, subject, asked, by=by, on=on, limits=limits)


def _pair(session: Session, body: Identify | Mapping[str, Any]) -> dict[str, ModelVersion]:
    given = body.model_dump() if isinstance(body, Identify) else body
    return {
        side: models.resolve(session, model_reference(given[side]))
        for side in SIDES
        if given.get(side) is not None
    }


def blob(request: Mapping[str, Any]) -> tuple[Digest, int] | None:
    """The file that an operation is to identify, if it is one: digest and size in bytes."""
    return (Digest(request["blob"]), request["size_bytes"]) if "blob" in request else None


def pair(session: Session, request: Mapping[str, Any]) -> dict[str, ModelVersion]:
    """The models that an operation is to tell the difference of; raises `ThingDeleted`."""
    return _pair(session, request)


def record(
    session: Session, operation: Operation, likenesses: Mapping[int, Mapping[str, float]]
) -> dict[str, Any]:
    """Judge what a worker found; answers the operation's result. Nothing is kept beside it.

    `likenesses` by version: `cosine`, `error`, `own_share` and `other_share` of each.
    """
    versions = _versions(session)
    candidates = [
        Candidate(
            *versions[number], row["cosine"], row["error"], row["own_share"], row["other_share"]
        )
        for number, row in likenesses.items()
        if number in versions
    ]
    verdict = judge(candidates)
    if not similarity.is_complete(session):
        similarity.bring_up_to_date(session, by=operation.created_by)
        late = "some patches of the catalogue are not measured yet; ask again"
        verdict = replace(verdict, reasons=(*verdict.reasons, late))
    nearest: dict[str, Candidate] = {}
    for one in sorted(candidates, key=lambda each: (-each.cosine, each.reference)):
        nearest.setdefault(one.reference.partition("@")[0], one)
    view = IdentificationView(
        label=verdict.label,
        second=verdict.second,
        margin=verdict.margin,
        confidence=verdict.confidence,
        trusted=verdict.trusted,
        reasons=list(verdict.reasons),
        labels=[LabelRank.model_validate(each) for each in verdict.labels[:SHOWN]],
        patches=[PatchRank.model_validate(each) for each in list(nearest.values())[:SHOWN]],
        compared=len(candidates),
    )
    return view.model_dump(mode="json")


def _versions(session: Session) -> dict[int, tuple[str, tuple[str, ...]]]:
    """Reference and labels of every version that takes part; a patch without any is its name."""
    query = (
        select(PatchVersion.id, PatchVersion.number, Patch.namespace, Patch.name, Patch.labels)
        .join(Patch, Patch.id == PatchVersion.patch_id)
        .join(MeasuredSignature, MeasuredSignature.version_id == PatchVersion.id)
        .where(similarity.LIVING)
    )
    return {
        row.id: (f"{row.namespace}/{row.name}@{row.number}", tuple(row.labels) or (row.name,))
        for row in session.execute(query)
    }

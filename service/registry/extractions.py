"""Ask for a patch to be extracted from a pair of models, and record what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from service import errors, queue
from service.db.tables.models import ModelVersion
from service.db.tables.operations import Operation
from service.db.tables.patches import Patch
from service.names import Digest, Name, model_reference, patch_name
from service.registry import blobs, lines, models, operations, patches
from service.registry.access import Principal
from service.registry.patches import Signature
from service.schemas.patches import RequestExtraction

EXTRACT = "extract"


@dataclass(frozen=True, slots=True)
class Inputs:
    """An extraction with its references resolved to exact versions."""

    patch: Name
    clean: ModelVersion
    robust: ModelVersion
    origin: ModelVersion | None
    layers: dict[str, Any] | str
    projection: str
    quality: str
    dry_run: bool
    forward_order: tuple[str, ...] | None
    """As the request gives it, which goes before `recorded_order`."""
    recorded_order: tuple[str, ...] | None
    """As the clean model's checkpoint held its tensors, where that is known."""


def request(
    session: Session,
    name: Name,
    body: RequestExtraction,
    *,
    by: Principal,
    limits: operations.Limits,
) -> Operation:
    """Resolve the references once, now, and queue the extraction.

    Raises `ThingNotFound`, `ThingDeleted`, `NothingToExtract`, `QueueFull`.
    """
    lines.find(session, Patch, name)
    found = {
        role: models.resolve(session, model_reference(text))
        for role, text in (("clean", body.clean), ("robust", body.robust), ("origin", body.origin))
        if text is not None
    }
    if found["clean"].weights_digest == found["robust"].weights_digest:
        raise errors.NothingToExtract("the clean and the robust model hold the same weights")
    exact = {role: version.reference for role, version in found.items()}
    return operations.request(
        session,
        EXTRACT,
        f"{name} from {exact['robust']} against {exact['clean']}",
        {**body.model_dump(mode="json"), **exact, "patch": str(name)},
        by=by,
        on=queue.GPU,
        limits=limits,
    )


def inputs(session: Session, request: Mapping[str, Any]) -> Inputs:
    """What the worker must read.

    Raises `ThingDeleted` where a version is gone meanwhile, and `DamagedBlob`.
    """
    clean = models.resolve(session, model_reference(request["clean"]))
    robust = models.resolve(session, model_reference(request["robust"]))
    start, order = request["origin"], request.get("forward_order")
    origin = models.resolve(session, model_reference(start)) if start else None
    for model in (clean, robust, *([origin] if origin else [])):
        blobs.require_sound(session, [Digest(file.digest) for file in model.weight_files])
    return Inputs(
        patch=patch_name(request["patch"]),
        clean=clean,
        robust=robust,
        origin=origin,
        layers=request["layers"],
        projection=request["projection"],
        quality=request["quality"],
        dry_run=request["dry_run"],
        forward_order=None if order is None else tuple(order),
        recorded_order=models.recorded_order([clean, robust, origin]),
    )


@dataclass(frozen=True, slots=True)
class Made:
    """What an extraction wrote; the blobs are in the store already. A dry run has no signature."""

    signature: Signature | None
    profile: Digest
    profile_bytes: int
    summary: dict[str, Any]


def record(session: Session, operation: Operation, made: Made) -> dict[str, Any]:
    """Publish what was extracted; answers the operation's result.

    `operation` is held by the caller, so that the first attempt to record wins.
    """
    blobs.record(session, made.profile, made.profile_bytes)
    if made.signature is None:
        return {
            "dry_run": True,
            "summary": made.summary,
            "links": {"profile": f"/v1/blobs/{made.profile}"},
        }
    used = inputs(session, operation.request)
    blobs.record(session, made.signature.digest, made.signature.size_bytes)
    version, _ = patches.publish(
        session,
        used.patch,
        made.signature,
        profile=made.profile,
        operation=operation,
        by=operation.created_by,
        lineage={"clean": used.clean, "robust": used.robust, "origin": used.origin},
    )
    return patches.published(version) | {"summary": made.summary}

"""Ask for patches to be extracted from pairs of models, and record what came of it.

One operation may extract several patches, of robust models that share their clean one.
"""

from collections.abc import Mapping, Sequence
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
from service.schemas.patches import RequestExtraction, RequestExtractions

EXTRACT = "extract"


@dataclass(frozen=True, slots=True)
class Inputs:
    """An extraction with its references resolved to exact versions; `robust` by patch to make."""

    clean: ModelVersion
    robust: Mapping[Name, ModelVersion]
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
    exact = _exact(session, {name: body.robust}, body)
    [robust] = exact.pop("robust").values()
    return operations.request(
        session,
        EXTRACT,
        f"{name} from {robust} against {exact['clean']}",
        {**body.model_dump(mode="json"), **exact, "robust": robust, "patch": str(name)},
        by=by,
        on=queue.GPU,
        limits=limits,
    )


def request_many(
    session: Session,
    robust: Mapping[Name, str],
    body: RequestExtractions,
    *,
    by: Principal,
    limits: operations.Limits,
) -> Operation:
    """Queue one operation that extracts a patch from each of several robust models.

    Raises `ThingNotFound`, `ThingDeleted`, `NothingToExtract`, `QueueFull`.
    """
    exact = _exact(session, robust, body)
    first, more = next(iter(robust)), len(robust) - 1
    return operations.request(
        session,
        EXTRACT,
        f"{first}{f' and {more} more' if more else ''} against {exact['clean']}",
        {**body.model_dump(mode="json"), **exact},
        by=by,
        on=queue.GPU,
        limits=limits,
    )


def _exact(
    session: Session, robust: Mapping[Name, str], body: RequestExtraction | RequestExtractions
) -> dict[str, Any]:
    """The references of a request, as exact versions."""
    clean = models.resolve(session, model_reference(body.clean))
    exact: dict[str, Any] = {"clean": clean.reference, "origin": None, "robust": {}}
    if body.origin is not None:
        exact["origin"] = models.resolve(session, model_reference(body.origin)).reference
    for name, text in robust.items():
        if not body.dry_run:  # which publishes nothing, so there need not be a patch yet
            lines.find(session, Patch, name)
        version = models.resolve(session, model_reference(text))
        if version.weights_digest == clean.weights_digest:
            raise errors.NothingToExtract(
                f"the clean model and the robust one, {version.reference}, hold the same weights"
            )
        exact["robust"][str(name)] = version.reference
    return exact


def inputs(session: Session, request: Mapping[str, Any]) -> Inputs:
    """What the worker must read.

    Raises `ThingDeleted` where a version is gone meanwhile, and `DamagedBlob`.
    """
    clean = models.resolve(session, model_reference(request["clean"]))
    robust = {
        patch_name(name): models.resolve(session, model_reference(text))
        for name, text in _robust(request).items()
    }
    start, order = request["origin"], request.get("forward_order")
    origin = models.resolve(session, model_reference(start)) if start else None
    for model in (clean, *robust.values(), *([origin] if origin else [])):
        blobs.require_sound(session, [Digest(file.digest) for file in model.weight_files])
    return Inputs(
        clean=clean,
        robust=robust,
        origin=origin,
        layers=request["layers"],
        projection=request["projection"],
        quality=request["quality"],
        dry_run=request["dry_run"],
        forward_order=None if order is None else tuple(order),
        recorded_order=models.recorded_order([clean, *robust.values(), origin]),
    )


def _robust(request: Mapping[str, Any]) -> dict[str, str]:
    """References of robust models by patch; a request for one patch names that beside it."""
    robust = request["robust"]
    return dict(robust) if isinstance(robust, Mapping) else {request["patch"]: robust}


@dataclass(frozen=True, slots=True)
class Made:
    """What an extraction wrote; the blobs are in the store already. A dry run has no signature."""

    signature: Signature | None
    profile: Digest
    profile_bytes: int
    summary: dict[str, Any]


def record(session: Session, operation: Operation, made: Sequence[Made]) -> dict[str, Any]:
    """Publish what was extracted, in the order of `inputs`; answers the operation's result.

    `operation` is held by the caller, so that the first attempt to record wins. All versions are
    published together, or none.
    """
    names = [patch_name(name) for name in _robust(operation.request)]
    if operation.request["dry_run"]:
        results = [_planned(session, one) for one in made]
    else:
        used = inputs(session, operation.request)
        results = [
            _published(session, operation, used, name, one)
            for name, one in zip(names, made, strict=True)
        ]
    if "patch" in operation.request:
        return results[0]
    listed = [{"patch": str(name), **one} for name, one in zip(names, results, strict=True)]
    return {"dry_run": operation.request["dry_run"], "extractions": listed}


def _planned(session: Session, made: Made) -> dict[str, Any]:
    blobs.record(session, made.profile, made.profile_bytes)
    return {
        "dry_run": True,
        "summary": made.summary,
        "links": {"profile": f"/v1/blobs/{made.profile}"},
    }


def _published(
    session: Session, operation: Operation, used: Inputs, name: Name, made: Made
) -> dict[str, Any]:
    assert made.signature is not None  # noqa: S101  # only a dry run has none
    blobs.record(session, made.profile, made.profile_bytes)
    blobs.record(session, made.signature.digest, made.signature.size_bytes)
    version, _ = patches.publish(
        session,
        name,
        made.signature,
        profile=made.profile,
        operation=operation,
        by=operation.created_by,
        lineage={"clean": used.clean, "robust": used.robust[name], "origin": used.origin},
    )
    return patches.published(version) | {"summary": made.summary}

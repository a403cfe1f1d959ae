"""The kinds of operations: how each becomes a job, and how what was made is recorded.

The one place that knows both the registry and `compute.jobs`, which are strangers to each other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from sqlalchemy.orm import Session

from service.compute.jobs import (
    BuildJob,
    BuildMade,
    ExtractJob,
    ExtractMade,
    MadeFile,
    MadeSignature,
    ModelInput,
    PatchInput,
    VerifyJob,
    VerifyMade,
    WeightInput,
)
from service.db.tables.models import ModelVersion
from service.db.tables.operations import Operation
from service.names import Digest
from service.registry import builds, extractions, patches
from service.registry.patches import Signature


class Made(Protocol):
    """What came of a job."""

    @property
    def files(self) -> tuple[MadeFile, ...]:
        """Files that must be blobs before the result is recorded."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of operation; each function runs in a transaction of its own.

    `prepare` makes the job, which must pickle. `record` is called with the operation held, and
    answers the operation's result.
    """

    prepare: Callable[[Session, Operation], Any]
    record: Callable[[Session, Operation, Any], dict[str, Any]]


def _prepare_extraction(session: Session, operation: Operation) -> ExtractJob:
    found = extractions.inputs(session, operation.request)
    return ExtractJob(
        clean=_model(found.clean),
        robust=_model(found.robust),
        origin=_model(found.origin) if found.origin else None,
        layers=found.layers,
        projection=found.projection,
        quality=found.quality,
        dry_run=found.dry_run,
    )


def _record_extraction(session: Session, operation: Operation, made: Any) -> dict[str, Any]:
    done = cast("ExtractMade", made)
    signature = None
    if done.patch is not None and done.signature is not None:
        signature = _signature(done.signature, done.patch.digest, done.patch.size_bytes)
    outcome = extractions.Made(
        signature, done.profile.digest, done.profile.size_bytes, dict(done.summary)
    )
    return extractions.record(session, operation, outcome)


def _prepare_build(session: Session, operation: Operation) -> BuildJob:
    base, parts = builds.inputs(session, operation.request)
    return BuildJob(
        _model(base),
        tuple(
            PatchInput(Digest(version.digest), version.size_bytes, version.reference, scale)
            for version, scale in parts
        ),
    )


def _record_build(session: Session, operation: Operation, made: Any) -> dict[str, Any]:
    done = cast("BuildMade", made)
    overlays = [
        builds.Overlay(each.path, each.file.digest, each.file.size_bytes, each.header)
        for each in done.overlays
    ]
    return builds.record(session, operation, overlays)


def _prepare_verification(session: Session, operation: Operation) -> VerifyJob:
    _ = session  # everything stands in the request
    return VerifyJob(*patches.verification(operation.request))


def _record_verification(session: Session, operation: Operation, made: Any) -> dict[str, Any]:
    done = cast("VerifyMade", made)
    digest, size_bytes = patches.verification(operation.request)
    return patches.record_verified(
        session, operation, _signature(done.signature, digest, size_bytes)
    )


def _model(version: ModelVersion) -> ModelInput:
    files = tuple(
        WeightInput(file.path, Digest(file.digest), file.size_bytes)
        for file in version.weight_files
    )
    return ModelInput(Digest(version.weights_digest), version.reference, files)


def _signature(made: MadeSignature, digest: Digest, size_bytes: int) -> Signature:
    return Signature(digest, size_bytes, made.tensors, dict(made.summary), made.inputs)


KINDS: Final[Mapping[str, Kind]] = {
    extractions.EXTRACT: Kind(_prepare_extraction, _record_extraction),
    builds.BUILD: Kind(_prepare_build, _record_build),
    patches.VERIFY: Kind(_prepare_verification, _record_verification),
}

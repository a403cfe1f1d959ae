"""Builds: a recipe becomes overlays."""

from typing import Any, Final, cast

from sqlalchemy.orm import Session

from service.compute.jobs import BuildJob, BuildMade, PatchInput
from service.db.tables.operations import Operation
from service.names import Digest
from service.registry import builds, digests
from service.worker.kinds.kind import Kind, model_input


def _prepare(session: Session, operation: Operation) -> BuildJob:
    base, parts = builds.inputs(session, operation.request)
    return BuildJob(
        model_input(base),
        tuple(
            PatchInput(Digest(version.digest), version.size_bytes, version.reference, scale)
            for version, scale in parts
        ),
    )


def _record(session: Session, operation: Operation, made: Any) -> dict[str, Any]:
    done = cast("BuildMade", made)
    overlays = [
        builds.Overlay(each.path, each.file.digest, each.file.size_bytes, each.header)
        for each in done.overlays
    ]
    result = builds.record(session, operation, overlays)
    digests.request(session, builds.ready(session, Digest(result["recipe"])))
    return result


BUILDING: Final = Kind(_prepare, _record)

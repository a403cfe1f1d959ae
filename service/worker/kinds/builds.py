"""Builds and sweeps: recipes become overlays."""

from typing import Any, Final, cast

from sqlalchemy.orm import Session

from service.compute.jobs import BuildJob, BuildMade, PatchInput, SweepJob, SweepMade
from service.db.tables.operations import Operation
from service.names import Digest
from service.registry import builds, digests, sweeps
from service.worker.kinds.kind import Kind, model_input


def _prepare(session: Session, operation: Operation) -> BuildJob:
    base, parts = builds.inputs(session, Digest(operation.request["recipe"]))
    return BuildJob(model_input(base), _patches(parts))


def _record(session: Session, operation: Operation, made: Any) -> dict[str, Any]:
    recipe = Digest(operation.request["recipe"])
    result = builds.record(session, recipe, _overlays(cast("BuildMade", made)))
    digests.request(session, builds.ready(session, recipe))
    return result


BUILDING: Final = Kind(_prepare, _record)


def _prepare_sweep(session: Session, operation: Operation) -> SweepJob:
    base, every = sweeps.inputs(session, operation.request)
    return SweepJob(model_input(base), tuple(map(_patches, every)))


def _record_sweep(session: Session, operation: Operation, made: Any) -> dict[str, Any]:
    # Whole files are hashed when one is asked for: most of a sweep is never pulled.
    done = cast("SweepMade", made)
    outcomes = [_overlays(each) if isinstance(each, BuildMade) else each for each in done.recipes]
    return sweeps.record(session, operation, outcomes)


SWEEPING: Final = Kind(_prepare_sweep, _record_sweep)


def _patches(parts: sweeps.Patches) -> tuple[PatchInput, ...]:
    return tuple(
        PatchInput(Digest(version.digest), version.size_bytes, version.reference, scale)
        for version, scale in parts
    )


def _overlays(made: BuildMade) -> list[builds.Overlay]:
    return [
        builds.Overlay(each.path, each.file.digest, each.file.size_bytes, each.header)
        for each in made.overlays
    ]

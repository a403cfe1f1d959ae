"""Builds and sweeps: recipes become overlays."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

from sqlalchemy.orm import Session

from service.compute.jobs import (
    Batches,
    BatchesMade,
    BuildJob,
    BuildMade,
    PatchInput,
    SweepJob,
)
from service.db.tables.operations import Operation
from service.names import Digest
from service.registry import builds, digests, sweeps
from service.worker.kinds.kind import Kind, model_input

BATCH: Final = 100
"""So many recipes are carried out at once: each has a file open."""
BATCH_BYTES: Final = 2**30
"""Or as many as make overlays of so many bytes, the most that waits to be stored; at least one."""


def _prepare(session: Session, operation: Operation) -> BuildJob:
    base, [wanted] = builds.inputs(session, [Digest(operation.request["recipe"])])
    return BuildJob(model_input(base), _patches(wanted))


def _record(session: Session, operation: Operation, made: Any) -> dict[str, Any]:
    recipe = Digest(operation.request["recipe"])
    return builds.record(session, recipe, _overlays(cast("BuildMade", made)))


def _hash(session: Session, operation: Operation) -> None:
    # Not with the result: whoever waits for the first bytes would wait for this, too.
    digests.request(session, builds.ready(session, Digest(operation.request["recipe"])))


BUILDING: Final = Kind(_prepare, _record, after=_hash)


def _prepare_sweep(session: Session, operation: Operation) -> Batches:
    base, every = builds.inputs(session, list(map(Digest, operation.request["recipes"])))
    model = model_input(base)
    return Batches(tuple(SweepJob(model, tuple(map(_patches, each))) for each in _cut(every)))


def _cut(every: Sequence[builds.Wanted]) -> Iterator[list[builds.Wanted]]:
    batch: list[builds.Wanted] = []
    room = BATCH_BYTES
    for wanted in every:
        if batch and (wanted.overlay_bytes > room or len(batch) == BATCH):
            yield batch
            batch, room = [], BATCH_BYTES
        batch.append(wanted)
        room -= wanted.overlay_bytes
    yield batch


def _record_sweep(session: Session, operation: Operation, made: Any) -> dict[str, Any]:
    # Whole files are hashed when one is asked for: most of a sweep is never pulled.
    every = [each for batch in cast("BatchesMade", made).made for each in batch.recipes]
    outcomes = [_overlays(each) if isinstance(each, BuildMade) else each for each in every]
    return sweeps.record(session, operation, outcomes)


SWEEPING: Final = Kind(_prepare_sweep, _record_sweep)


def _patches(wanted: builds.Wanted) -> tuple[PatchInput, ...]:
    return tuple(
        PatchInput(Digest(version.digest), version.size_bytes, version.reference, scale)
        for version, scale in wanted.patches
    )


def _overlays(made: BuildMade) -> list[builds.Overlay]:
    return [
        builds.Overlay(each.path, each.file.digest, each.file.size_bytes, each.header)
        for each in made.overlays
    ]

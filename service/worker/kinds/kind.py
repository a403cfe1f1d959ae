"""What every kind of operation has to say of itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy.orm import Session, sessionmaker

from service.blobs.store import BlobStore
from service.compute.jobs import MadeFile, MadeSignature, ModelInput, WeightInput
from service.db.tables.models import ModelVersion
from service.db.tables.operations import Operation
from service.names import Digest
from service.registry.patches import Signature

Told = Callable[[float, str], None]
"""Told how much is done, from 0 to 1, and what is being done; raises where it is to stop."""


class Made(Protocol):
    """What came of a job."""

    @property
    def files(self) -> tuple[MadeFile, ...]:
        """Files that must be blobs before the result is recorded."""


@dataclass(frozen=True, slots=True)
class Hands:
    """What a job works with that runs in the worker itself."""

    store: BlobStore
    sessions: sessionmaker[Session]
    told: Told


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of operation; each function runs in a transaction of its own.

    `prepare` makes the job, which must pickle, or `Batches` of them. `record` is called with the
    operation held, and answers the operation's result.

    `after` asks for what can wait until the result is told: a worker that is killed in between
    never asks, so somebody else must, too, who misses it.

    With `carry` the job needs no device: no child process is started for it, and no torch loaded.
    It runs in the worker itself, in no transaction but those that it opens.
    """

    prepare: Callable[[Session, Operation], Any]
    record: Callable[[Session, Operation, Any], dict[str, Any]]
    carry: Callable[[Any, Hands], Made] | None = None
    after: Callable[[Session, Operation], None] | None = None


def model_input(version: ModelVersion) -> ModelInput:
    """A model version as a job names it."""
    files = tuple(
        WeightInput(file.path, Digest(file.digest), file.size_bytes)
        for file in version.weight_files
    )
    return ModelInput(Digest(version.weights_digest), version.reference, files)


def signature_of(made: MadeSignature, digest: Digest, size_bytes: int) -> Signature:
    """What a job found in a patch file, as the registry records it."""
    return Signature(digest, size_bytes, made.tensors, dict(made.summary), made.inputs)

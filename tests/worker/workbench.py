"""A worker with two more kinds of operations, `bench` and `batches` of the same."""

import json
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from service import observability
from service.compute.jobs import Batches, BatchesMade
from service.db.tables.operations import Operation
from service.registry import blobs
from service.worker.kinds.kind import Kind
from service.worker.kinds.table import KINDS
from service.worker.run import WorkerConfig, run
from tests.worker import bench
from tests.worker.bench import BenchJob, BenchMade

BENCH = "bench"
BATCHES = "batches"
COUNT = 3


def prepare(session: Session, operation: Operation) -> BenchJob:
    _ = session
    return BenchJob(**operation.request)


def record(session: Session, operation: Operation, made: BenchMade) -> dict[str, Any]:
    (file,) = made.files
    blobs.record(session, file.digest, file.size_bytes)
    row = {"operation": operation.id, "attempt": operation.attempt}
    session.execute(text("INSERT INTO recordings VALUES (:operation, :attempt)"), row)
    return {"digest": file.digest}


def prepare_batches(session: Session, operation: Operation) -> Batches:
    return Batches((prepare(session, operation),) * COUNT)


def record_batches(session: Session, operation: Operation, made: BatchesMade) -> dict[str, Any]:
    return {"digests": [record(session, operation, each)["digest"] for each in made.made]}


def main() -> None:
    kinds = {BENCH: Kind(prepare, record), BATCHES: Kind(prepare_batches, record_batches)}
    run(_config(), kinds={**KINDS, **kinds}, carrier=bench.__name__)


def production() -> None:
    run(_config())


def _config() -> WorkerConfig:
    observability.configure("json")
    given = json.loads(sys.argv[1])
    scratch = Path(given.pop("scratch"))
    return WorkerConfig(**given, scratch=scratch)

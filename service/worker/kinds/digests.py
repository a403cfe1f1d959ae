"""Digests: the sha256 of patched files, which lie in no blob of their own."""

from typing import Any, Final, cast

from sqlalchemy.orm import Session

from service.compute.jobs import DigestJob, DigestMade
from service.db.tables.operations import Operation
from service.registry import digests
from service.worker.kinds.kind import Kind


def _prepare(session: Session, operation: Operation) -> DigestJob:
    return DigestJob(*digests.inputs(session, operation.request))


def _record(session: Session, operation: Operation, made: Any) -> dict[str, Any]:
    return digests.record(session, operation, cast("DigestMade", made).digests)


DIGESTING: Final = Kind(_prepare, _record)

"""Whether the process lives, whether it can serve, and what it measures."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.orm import Session, sessionmaker
from starlette.responses import JSONResponse, PlainTextResponse

from service import errors, observability
from service.blobs.store import BlobStore
from service.db import revision
from service.http.deps import Config, Limits, Parts, Store
from service.http.problems import DATABASE_DOWN, answers
from service.registry import operations
from service.schemas.operations import Readiness

log = observability.logger(__name__)

router = APIRouter(tags=["service"], responses=answers(errors.Broken))


@router.get("/healthz", name="health")
async def healthz() -> JSONResponse:
    """Say that the process answers; asks nothing of the parts behind it."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz", name="ready", responses=answers(errors.NotReady))
def readyz(parts: Config, store: Store, limits: Limits) -> Readiness:
    """Say which parts behind the service answer; 503 while one that it needs does not.

    Without a live worker, reading goes on and long work waits: told, but no reason to take the
    process out of service.
    """
    found = {
        "database": _database(parts.sessions),
        "store": _store(store),
    }
    if any(state != "ok" for state in found.values()):
        raise errors.NotReady(found)
    with parts.sessions.begin() as session:
        alive = operations.live_workers(session, limits)
    found["worker"] = "ok" if alive else "none alive; start one with `patchbay worker`"
    return Readiness(ready=True, parts=found)


@router.get("/metrics", name="metrics", response_class=PlainTextResponse)
def metrics(parts: Config) -> Response:
    """Answer what is measured, in Prometheus' text format."""
    observability.open_operations.clear()
    observability.live_workers.clear()
    try:
        _refresh(parts)
    except DATABASE_DOWN as error:
        # The process's own figures are wanted most when something is down.
        log.warning("metrics without the database's", error=str(error).splitlines()[0])
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _refresh(parts: Parts) -> None:
    with parts.sessions.begin() as session:
        for queue, state, number in operations.counts(session):
            observability.open_operations.labels(queue, state).set(number)
        for worker in operations.live_workers(session, parts.limits):
            for queue in worker.queues:
                observability.live_workers.labels(queue).inc()


def _database(sessions: sessionmaker[Session]) -> str:
    try:
        with sessions.begin() as session:
            lacking = revision.pending(session.connection())
    except DATABASE_DOWN:
        return "does not answer"
    return "ok" if not lacking else f"lacks {', '.join(lacking)}; run `patchbay migrate`"


def _store(store: BlobStore) -> str:
    try:
        store.check()
    except errors.StoreUnavailable as error:
        return error.reason
    return "ok"

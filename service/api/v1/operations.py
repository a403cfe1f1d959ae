"""Operations: the progress and the outcome of long work."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.operations import Operation
from service.http import waiting
from service.http.conditional import Wait, applied
from service.http.deps import Config, DbSession, Parts, Publisher, Reader
from service.http.paging import Pages
from service.http.problems import DATABASE_DOWN, answers
from service.registry import events, operations
from service.schemas.operations import OperationView, State
from service.schemas.wire import Page

router = APIRouter(prefix="/operations", tags=["operations"])

HEARTBEAT_S: Final = 15.0
"""Proxies cut connections that stay silent for a minute or so."""


def accepted(operation: Operation) -> Response:
    """Answer a request that began long work: 202, the operation, and where to follow it."""
    shown = OperationView.model_validate(operation).model_dump(mode="json")
    return JSONResponse(shown, 202, {"Location": f"/v1/operations/{operation.id}"})


@router.get("", name="list")
def listed(
    session: DbSession,
    caller: Reader,
    paging: Pages,
    state: Annotated[State | None, Query(description="Only those in this state.")] = None,
) -> Page[OperationView]:
    """List operations, newest first."""
    after = paging.after(tuple[datetime, str])
    rows = operations.listed(session, after=after, limit=paging.fetch, state=state)
    return paging.page(
        rows, key=lambda row: (row.created_at, row.id), view=OperationView.model_validate
    )


@router.get("/{operation_id}", name="read", responses=answers(errors.ThingNotFound))
async def read(
    operation_id: str, parts: Config, caller: Reader, wait_s: Wait, response: Response
) -> OperationView:
    """Read an operation; with `Prefer: wait=N`, once it has ended or N seconds have passed."""
    applied(response, wait_s)
    return await waiting.ended(parts.listener, parts.sessions, operation_id, wait_s)


@router.post(
    "/{operation_id}/cancel",
    name="cancel",
    responses=answers(errors.ThingNotFound, errors.OperationEnded),
)
def cancel(operation_id: str, session: DbSession, caller: Publisher) -> OperationView:
    """Ask an operation to end: at once while it is queued, within seconds while it runs."""
    operations.check_own(operations.find(session, operation_id), caller)
    return OperationView.model_validate(operations.cancel(session, operation_id))


@router.get(
    "/{operation_id}/events",
    name="follow",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "An event `operation` for each change and `ended` for the last one, "
            "each with the operation as its data; the stream ends with the operation.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        204: {"description": "The last event was seen; there is nothing more to come."},
        **answers(errors.ThingNotFound),
    },
)
async def follow(
    operation_id: str,
    parts: Config,
    caller: Reader,
    last_event_id: Annotated[str | None, Header(description="The last event seen.")] = None,
) -> Response:
    """Follow an operation by server-sent events."""
    seen = await waiting.read(parts.sessions, lambda session: _look(session, operation_id))
    if seen.state.ended and last_event_id == _event_id(seen):
        # A browser connects again whenever a stream ends, until it is told not to.
        return Response(status_code=HTTPStatus.NO_CONTENT)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(
        _events(parts, operation_id), headers=headers, media_type="text/event-stream"
    )


async def _events(parts: Parts, operation_id: str) -> AsyncIterator[str]:
    """Send the operation whenever it changed, at most five times a second, until it has ended."""
    sent = ""
    async with parts.listener.subscribe(events.of_operation(operation_id)) as changes:
        while not parts.listener.ended:
            try:
                now = await waiting.read(parts.sessions, lambda s: _look(s, operation_id))
            except DATABASE_DOWN:
                # The listener wakes everybody once the database is back.
                yield ": the database does not answer\n\n"
                await changes.wait(HEARTBEAT_S)
                continue
            if _event_id(now) != sent:
                sent = _event_id(now)
                yield _event(now)
            if now.state.ended:
                return
            await asyncio.sleep(waiting.READ_AGAIN_S)
            while not await changes.wait(HEARTBEAT_S):
                yield ": still here\n\n"


def _event(operation: OperationView) -> str:
    name = "ended" if operation.state.ended else "operation"
    data = operation.model_dump_json()
    return f"id: {_event_id(operation)}\nevent: {name}\ndata: {data}\n\n"


def _event_id(operation: OperationView) -> str:
    text = f"{operation.attempt}\n{operation.state}\n{operation.progress}\n{operation.message}"
    return f"{operation.attempt}-{operation.state}-{zlib.crc32(text.encode()):08x}"


def _look(session: Session, operation_id: str) -> OperationView:
    return OperationView.model_validate(operations.find(session, operation_id))

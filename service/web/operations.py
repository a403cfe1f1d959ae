"""Pages of operations: live where scripts run, else read again every few seconds."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response

from service.http.deps import DbSession
from service.http.paging import Pages
from service.registry import operations as registry
from service.schemas.operations import State
from service.web.assets import GET
from service.web.drawing import ReaderPage

router = APIRouter(prefix="/operations", include_in_schema=False)


@router.api_route("", methods=GET)
def listed(
    page: ReaderPage,
    session: DbSession,
    paging: Pages,
    state: Annotated[State | None, Query()] = None,
) -> Response:
    """List operations, newest first."""
    after = paging.after(tuple[datetime, str])
    rows = registry.listed(session, after=after, limit=paging.fetch, state=state)
    shown = paging.page(rows, key=lambda row: (row.created_at, row.id), view=lambda row: row)
    return page.draw(
        "operations.html", rows=shown, states=list(State), state=state, first=after is None
    )


@router.api_route("/{operation_id}", methods=GET)
def read(page: ReaderPage, operation_id: str, session: DbSession) -> Response:
    """Show an operation."""
    operation = registry.find(session, operation_id[:100])
    return page.draw("operation.html", operation=operation, ended=State(operation.state).ended)

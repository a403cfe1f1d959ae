"""Pages of operations: live where scripts run, else read again every few seconds."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Response
from sqlalchemy.orm import Session

from service.db.tables.blobs import Blob
from service.http.deps import Config, DbSession
from service.http.paging import Pages
from service.names import Digest
from service.registry import blobs
from service.registry import operations as registry
from service.schemas.operations import State
from service.web import profile
from service.web.assets import GET
from service.web.charts import profile_chart
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
def read(page: ReaderPage, operation_id: str, parts: Config) -> Response:
    """Show an operation and what came of it."""
    with parts.sessions.begin() as session:
        operation = registry.find(session, operation_id[:100])
        planned = _planned(operation.result or {})
        blob = _profile_blob(session, planned[0]) if len(planned) == 1 else None
    # As on a patch's page: no transaction is open while the store is read.
    found = None if blob is None else profile.read(parts.store, blob.digest, blob.size_bytes)
    return page.draw(
        "operation.html",
        operation=operation,
        ended=State(operation.state).ended,
        planned=[(each.get("patch", ""), profile.summary(each["summary"])) for each in planned],
        profile=found,
        chart=profile_chart(found) if found else None,
        compared=urlencode([("patch", name) for name in operation.request.get("patches", [])]),
    )


def _planned(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What dry runs of extractions told."""
    each = result.get("extractions", [result])
    return [one for one in each if one.get("dry_run") is True and "summary" in one]


def _profile_blob(session: Session, planned: Mapping[str, Any]) -> Blob | None:
    """Where the profile of a dry run lies, unless it was collected."""
    address = planned.get("links", {}).get("profile", "")
    blob = blobs.known(session, Digest(address.removeprefix("/v1/blobs/")))
    if blob is not None:
        session.expunge(blob)
    return blob

"""The page of builds."""

from datetime import datetime

from fastapi import APIRouter, Response

from service.http.deps import DbSession
from service.http.paging import Pages
from service.web.assets import GET
from service.web.drawing import ReaderPage
from service.web.rows import builds

router = APIRouter(prefix="/builds", include_in_schema=False)


@router.api_route("", methods=GET)
def listed(page: ReaderPage, session: DbSession, paging: Pages) -> Response:
    """List builds, newest first."""
    after = paging.after(tuple[datetime, str])
    rows = builds.listed(session, after=after, limit=paging.fetch)
    shown = paging.page(rows, key=lambda row: (row.created_at, row.digest), view=lambda row: row)
    return page.draw("builds.html", rows=shown)

"""The first page: models and patches, with one search box."""

from typing import Final

from fastapi import APIRouter, Response

from service.http.deps import DbSession
from service.web.assets import GET
from service.web.drawing import Label, ReaderPage, Words
from service.web.rows import lines
from service.web.rows.lines import Search

SHOWN: Final = 12
"""Lines of each kind; the rest is one click away."""

router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=GET)
def home(page: ReaderPage, session: DbSession, words: Words = "", label: Label = None) -> Response:
    """Show the catalogue."""
    search = Search(words, label or None, limit=SHOWN + 1)
    models = lines.models(session, search)
    patches = lines.patches(session, search)
    return page.draw(
        "home.html",
        words=words,
        asked={key: value for key, value in (("q", words), ("label", label)) if value},
        label=label,
        models=models[:SHOWN],
        more_models=len(models) > SHOWN,
        patches=patches[:SHOWN],
        more_patches=len(patches) > SHOWN,
    )

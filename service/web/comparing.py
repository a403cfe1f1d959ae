"""The page of a set of patches, compared each with each."""

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.patches import PatchVersion
from service.http.deps import Config, DbSession
from service.names import patch_reference, version_number
from service.registry import comparisons
from service.web import heat
from service.web.assets import GET
from service.web.commands import Commands
from service.web.drawing import Label, ReaderPage
from service.web.rows import likeness

SHOWN: Final = 24
"""What a table of this width can show; the command line compares more."""
_ASKED: Final = 100

router = APIRouter(prefix="/patches", include_in_schema=False)

Patches = Annotated[list[Annotated[str, Query(max_length=250)]], Query(max_length=_ASKED)]


@router.api_route("/compare", methods=GET)
def compare(
    page: ReaderPage,
    session: DbSession,
    parts: Config,
    patch: Patches = [],  # noqa: B006  # FastAPI copies it
    label: Label = None,
) -> Response:
    """Compare patches that are named, or those that bear a label.

    Exactly where a worker has compared this very set, else as far as the index of neighbours goes.
    """
    if label:
        found = likeness.labelled(session, label, limit=SHOWN + 1)
    else:
        found = _named(session, patch[: SHOWN + 1])
    versions = found[:SHOWN]
    return page.draw(
        "compare.html",
        label=label,
        more=len(found) > SHOWN,
        heat=_heat(session, versions) if len(versions) > 1 else None,
        command=Commands(page.url, parts).to_compare([each.reference for each in versions]),
    )


def _named(session: Session, references: Sequence[str]) -> Sequence[PatchVersion]:
    """The versions of these names; raises `ThingNotFound`, `BadReference`, `BadName`."""
    asked = []
    for text in references:
        reference = patch_reference(text)
        number = version_number(reference.revision) if reference.revision else None
        asked.append((reference.name, number))
    found = likeness.named(session, asked) if asked else []
    there = {(each.patch.key, n) for each in found for n in (each.number, None)}
    for text, (name, number) in zip(references, asked, strict=True):
        if (name.key, number) not in there:
            raise errors.ThingNotFound("patch version", text)
    return found


def _heat(session: Session, versions: Sequence[PatchVersion]) -> heat.HeatMap:
    known = comparisons.find(session, versions)
    if known is not None:
        return heat.of_set(comparisons.shown(versions, known))
    return heat.of_index(versions, likeness.among(session, {each.id for each in versions}))

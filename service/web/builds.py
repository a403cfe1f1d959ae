"""Pages of builds: all of them, and one with its files and how its patches go together."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Path, Response
from sqlalchemy.orm import Session

from service import errors
from service.http.deps import Config, DbSession
from service.http.paging import Pages
from service.registry import builds as registry
from service.registry import composition, recipes
from service.registry.recipes import Resolved
from service.schemas.similarity import Explained, PairInterference
from service.web import heat
from service.web.assets import GET
from service.web.commands import Commands
from service.web.drawing import ReaderPage
from service.web.rows import builds

PAIRS_SHOWN: Final = 10
BALANCED: Final = 8
"""So many patches at most are balanced here: each is looked up again, as in a new recipe."""

router = APIRouter(prefix="/builds", include_in_schema=False)

BuildPath = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


@router.api_route("", methods=GET)
def listed(page: ReaderPage, session: DbSession, paging: Pages) -> Response:
    """List builds, newest first."""
    after = paging.after(tuple[datetime, str])
    rows = builds.listed(session, after=after, limit=paging.fetch)
    shown = paging.page(rows, key=lambda row: (row.created_at, row.digest), view=lambda row: row)
    return page.draw("builds.html", rows=shown)


@router.api_route("/{build_id}", methods=GET)
def read(page: ReaderPage, build_id: BuildPath, session: DbSession, parts: Config) -> Response:
    """Show a build: its recipe, its files, and how its patches go together."""
    build = registry.find(session, build_id)
    resolved = recipes.loaded(build.recipe)
    paths = [file.path for file in resolved.base.weight_files]
    commands = Commands(page.url, parts)
    return page.draw(
        "build.html",
        build=build,
        resolved=resolved,
        fits=[recipes.fit_of(part.version, resolved.base) for part in resolved.parts],
        overlays={file.path: file for file in build.files},
        licenses=recipes.licenses(resolved),
        warnings=recipes.warnings(resolved),
        together=_together(session, resolved),
        commands=commands.of_recipe(recipes.pinned(resolved), paths),
        command=commands.to_compare([part.version.reference for part in resolved.parts]),
    )


@dataclass(frozen=True, slots=True)
class Together:
    """How the patches of a recipe meet, and the scales that would balance them."""

    heat: heat.HeatMap
    pairs: Sequence[PairInterference]
    """Those that meet most, first."""
    balance: Explained | None
    refused: str
    """Why they cannot be balanced, if so."""


def _together(session: Session, resolved: Resolved) -> Together | None:
    """What is known of it; None of fewer than two patches, or where nobody compared them."""
    if len(resolved.parts) < 2:  # noqa: PLR2004
        return None
    met = composition.compose(
        session, resolved, require="same_architecture", balanced=False, interference=True
    )
    if met is None:
        return None
    names, pairs = met[1].patches, met[1].interference or []
    balance, refused = _balance(session, resolved)
    loudest = sorted(pairs, key=lambda pair: -abs(pair.cosine))[:PAIRS_SHOWN]
    return Together(heat.of_pairs(names, pairs), loudest, balance, refused)


def _balance(session: Session, resolved: Resolved) -> tuple[Explained | None, str]:
    if len(resolved.parts) > BALANCED:
        return None, f"of over {BALANCED} patches `patchbay build --balance` tells"
    try:
        balanced = composition.compose(
            session, resolved, require="same_architecture", balanced=True, interference=False
        )
    except (errors.CannotBalance, errors.NotFound, errors.Gone) as error:
        return None, str(error)  # one of its versions may have been deleted since
    return (balanced[1].balance, "") if balanced else (None, "")

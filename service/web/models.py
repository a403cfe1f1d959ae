"""Pages of models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.models import Alias, Model, ModelVersion
from service.http.deps import Config, DbSession, ModelPath
from service.http.paging import Pages
from service.names import Digest, canonical_recipe, version_number
from service.registry import aliases
from service.registry import lines as registry_lines
from service.registry import models as registry
from service.schemas.models import ConversionView
from service.web.assets import GET
from service.web.commands import Command, Commands
from service.web.drawing import Label, ReaderPage, Words
from service.web.rows import channels, fitting, lines, versions
from service.web.rows.fitting import FittingPatch
from service.web.rows.lines import Search

VERSIONS_SHOWN: Final = 30

router = APIRouter(prefix="/models", include_in_schema=False)

Revision = Annotated[str | None, Query(max_length=97)]
Before = Annotated[int | None, Query(ge=1, lt=2**31)]


@router.api_route("", methods=GET)
def listed(
    page: ReaderPage,
    session: DbSession,
    paging: Pages,
    words: Words = "",
    label: Label = None,
) -> Response:
    """List models by name."""
    search = Search(words, label or None, after=paging.after(str), limit=paging.fetch)
    shown = paging.page(
        lines.models(session, search), key=lambda row: row.key, view=lambda row: row
    )
    return page.draw("models.html", rows=shown, words=words, label=label)


@router.api_route("/{namespace}/{name}", methods=GET)
def read(
    page: ReaderPage,
    name: ModelPath,
    session: DbSession,
    parts: Config,
    version: Revision = None,
    before: Before = None,
) -> Response:
    """Show a model: one of its versions, and what hangs on it."""
    model = registry_lines.find(session, Model, name)
    named = aliases.listed(session, model)
    shown = _shown(model, named, version)
    current = None if shown is None else registry.version(session, name, shown)
    fits = fitting.patches(session, current) if current else []
    older = versions.of_model(session, model, before=before, limit=VERSIONS_SHOWN + 1)
    return page.draw(
        "model.html",
        model=model,
        current=current,
        aliases=named,
        versions=older[:VERSIONS_SHOWN],
        more=older[VERSIONS_SHOWN - 1].number if len(older) > VERSIONS_SHOWN else None,
        before=before,
        uses=versions.uses(session, model),
        channels=channels.on_model(session, model),
        fits=fits,
        fits_shown=fitting.SHOWN,
        told=_told(session, current),
        commands=_commands(page, parts, current, fits),
    )


@dataclass(frozen=True, slots=True)
class Told:
    """What a version tells of its making."""

    ordered: int | None
    recipe: Digest | None
    """Of the version alone, whose commit Hub clients know; None while nobody asked for it."""
    conversion: ConversionView | None


def _told(session: Session, current: ModelVersion | None) -> Told | None:
    if current is None:
        return None
    digest = canonical_recipe(Digest(current.weights_digest), ()).digest
    known = versions.known(session, current.id, digest)
    return Told(
        known.ordered,
        digest if known.is_recipe else None,
        ConversionView.model_validate(current.conversion) if current.conversion else None,
    )


def _shown(model: Model, named: Sequence[Alias], revision: str | None) -> int | None:
    """The number of the version that is asked for: `main` unless said; None before the first."""
    number = version_number(revision) if revision else None
    if number is not None:
        return number
    wanted = (revision or aliases.MAIN).lower()
    found = next((alias.version_number for alias in named if alias.key == wanted), 0)
    if revision and not found:
        raise errors.ThingNotFound("alias", f"{model.full_name}@{revision}")
    return found or None


def _commands(
    page: ReaderPage, parts: Config, current: ModelVersion | None, fits: Sequence[FittingPatch]
) -> list[Command]:
    if current is None:
        return []
    paths = [file.path for file in current.weight_files]
    patch = next((each.patch for each in fits if each.same_base), None)
    return Commands(page.url, parts).of_model(current.reference, paths, patch)

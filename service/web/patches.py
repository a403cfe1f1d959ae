"""Pages of patches: what one does to which layers, how large it is, and where it comes from."""

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response
from sqlalchemy.orm import Session

from service.db.tables.patches import Patch
from service.http.deps import Config, DbSession, PatchPath
from service.http.paging import Pages
from service.names import Name, model_name
from service.registry import lines as registry_lines
from service.web import profile
from service.web.assets import GET
from service.web.charts import profile_chart
from service.web.commands import Command, Commands
from service.web.curves import STUDIES_SHOWN, CurveChart, Study, curve_chart, studies
from service.web.drawing import Label, ReaderPage, Words
from service.web.rows import channels, evaluations, fitting, likeness, lines, versions
from service.web.rows.evaluations import Point
from service.web.rows.fitting import FittingBase
from service.web.rows.likeness import Nearest
from service.web.rows.lines import Search
from service.web.rows.versions import PatchVersionShown

VERSIONS_SHOWN: Final = 30

router = APIRouter(prefix="/patches", include_in_schema=False)

Base = Annotated[str | None, Query(max_length=200)]
Number = Annotated[int | None, Query(ge=1, lt=2**31)]


@router.api_route("", methods=GET)
def listed(
    page: ReaderPage,
    session: DbSession,
    paging: Pages,
    words: Words = "",
    label: Label = None,
    base: Base = None,
) -> Response:
    """List patches by name."""
    on: Name | None = model_name(base) if base else None
    search = Search(words, label or None, on, after=paging.after(str), limit=paging.fetch)
    shown = paging.page(
        lines.patches(session, search), key=lambda row: row.key, view=lambda row: row
    )
    return page.draw("patches.html", rows=shown, words=words, label=label, base=on)


@router.api_route("/{namespace}/{name}", methods=GET)
def read(
    page: ReaderPage,
    name: PatchPath,
    parts: Config,
    version: Number = None,
    before: Number = None,
) -> Response:
    """Show a patch: one of its versions, its layers, and what leads to it."""
    with parts.sessions.begin() as session:
        patch = registry_lines.find(session, Patch, name)
        current = versions.shown(session, patch, version)
        older = versions.of_patch(session, patch, before=before, limit=VERSIONS_SHOWN + 1)
        followers = channels.with_patch(session, current.id) if current else []
        known = _known(session, current) if current else None
    # The profile lies in the blob store: no transaction is open while it is read.
    found = _profile(parts, current)
    return page.draw(
        "patch.html",
        patch=patch,
        current=current,
        summary=profile.summary(current.summary if current else {}),
        profile=found,
        chart=profile_chart(found) if found else None,
        versions=older[:VERSIONS_SHOWN],
        more=older[VERSIONS_SHOWN - 1].number if len(older) > VERSIONS_SHOWN else None,
        before=before,
        channels=followers,
        known=known,
        fits_shown=fitting.SHOWN,
        commands=(
            Commands(page.url, parts).of_patch(
                patch.full_name, current.number, current.clean, current.clean_paths
            )
            if current
            else []
        ),
        evaluate=_evaluation(Commands(page.url, parts), patch, current, known),
    )


@dataclass(frozen=True, slots=True)
class Known:
    """What was found of a version since it was published."""

    points: list[Point]
    studies: list[tuple[Study, CurveChart]]
    nearest: Nearest
    bases: list[FittingBase]

    @property
    def has_more_points(self) -> bool:
        """Whether there may be more than were read."""
        return len(self.points) == evaluations.POINTS_SHOWN


def _known(session: Session, current: PatchVersionShown) -> Known:
    points = evaluations.of_version(session, current.id)
    return Known(
        points,
        [(study, curve_chart(study)) for study in studies(points)[:STUDIES_SHOWN]],
        likeness.nearest(session, current.id),
        fitting.bases(session, current.requirement_id, current.clean_digest),
    )


def _evaluation(
    commands: Commands, patch: Patch, current: PatchVersionShown | None, known: Known | None
) -> Command | None:
    """How to measure it: as it was measured before, if it was."""
    if current is None or known is None:
        return None
    reference = f"{patch.full_name}@{current.number}"
    if not known.points:
        return commands.to_evaluate(reference, current.clean, None, None)
    like = known.points[0]
    return commands.to_evaluate(reference, like.base, like.data_set, like.corruption)


def _profile(parts: Config, current: PatchVersionShown | None) -> profile.Profile | None:
    if current is None or current.profile_digest is None or current.profile_bytes is None:
        return None
    return profile.read(parts.store, current.profile_digest, current.profile_bytes)

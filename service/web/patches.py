"""Pages of patches: what one does to which layers, how large it is, and where it comes from."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from service.db.tables.patches import Patch
from service.http.deps import Config, DbSession, PatchPath
from service.http.paging import Pages
from service.names import Name, model_name
from service.registry import lines as registry_lines
from service.web import profile
from service.web.assets import GET
from service.web.charts import profile_chart
from service.web.commands import Commands
from service.web.drawing import Label, ReaderPage, Words
from service.web.rows import channels, lines, versions
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
        paths = versions.weight_paths(session, current.clean_version_id) if current else []
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
        commands=(
            Commands(page.url, parts).of_patch(
                patch.full_name, current.number, current.clean, paths
            )
            if current
            else []
        ),
    )


def _profile(parts: Config, current: PatchVersionShown | None) -> profile.Profile | None:
    if current is None or current.profile_digest is None or current.profile_bytes is None:
        return None
    return profile.read(parts.store, current.profile_digest, current.profile_bytes)

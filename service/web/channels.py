"""Pages of channels: what each points at, and who moved it when."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from service.http.deps import ChannelPath, Config, DbSession
from service.http.paging import Pages
from service.registry import channels as registry
from service.web.assets import GET
from service.web.commands import Commands
from service.web.drawing import ReaderPage
from service.web.rows import channels, versions

MOVES_SHOWN: Final = 50

router = APIRouter(prefix="/channels", include_in_schema=False)


@router.api_route("", methods=GET)
def listed(page: ReaderPage, session: DbSession, paging: Pages) -> Response:
    """List channels by name."""
    rows = channels.listed(session, after=paging.after(str), limit=paging.fetch)
    shown = paging.page(rows, key=lambda row: row.key, view=lambda row: row)
    return page.draw("channels.html", rows=shown)


@router.api_route("/{namespace}/{name}", methods=GET)
def read(
    page: ReaderPage,
    name: ChannelPath,
    session: DbSession,
    parts: Config,
    before: Annotated[int | None, Query(ge=1, lt=2**31)] = None,
) -> Response:
    """Show a channel: where it points now, and every move that it made."""
    channel = registry.find(session, name)
    (head,) = channels.moves(session, channel, before=channel.head + 1, limit=1)
    moves = channels.moves(session, channel, before=before, limit=MOVES_SHOWN + 1)
    target = channels.target(session, head.recipe_digest)
    paths = versions.weight_paths(session, target.base_version_id)
    model = head.base.partition("@")[0]
    return page.draw(
        "channel.html",
        channel=channel,
        head=head,
        target=target,
        moves=moves[:MOVES_SHOWN],
        more=moves[MOVES_SHOWN - 1].number if len(moves) > MOVES_SHOWN else None,
        before=before,
        commands=Commands(page.url, parts).of_channel(channel.full_name, model, paths),
    )

"""Lists of files: trees, and what is told of single paths."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, unquote

from fastapi import APIRouter, Request
from sqlalchemy.orm import Session

from service.http import waiting
from service.hub import building, files, refusals
from service.hub.files import Entry
from service.hub.revisions import Asked, Pinned, Revision, pin

router = APIRouter(prefix="/api/models/{namespace}/{name}")


@router.get("/tree/{revision}")
@router.get("/tree/{revision}/{path:path}")
async def tree(asked: Revision, path: str = "", *, recursive: bool = False) -> list[dict[str, Any]]:
    """List the files of a revision, or of a folder of it."""
    folder = unquote(path).strip("/")
    pinned, entries = await _entries(asked)
    found = files.tree(entries, folder, recursive=recursive)
    if not found and folder:
        raise refusals.entry_not_found(f"no folder {folder!r}", pinned.commit)
    return found


@router.post("/paths-info/{revision}")
async def paths_info(asked: Revision, request: Request) -> list[dict[str, Any]]:
    """Describe some paths; what is not there is left out."""
    form = parse_qs((await request.body()).decode("utf-8", "replace"))
    _, entries = await _entries(asked)
    by_path = {entry.path: files.item(entry) for entry in entries}
    folders = {each["path"]: each for each in files.tree(entries, "", recursive=True)}
    return [(folders | by_path)[path] for path in form.get("paths", []) if path in folders]


async def _entries(asked: Asked) -> tuple[Pinned, Sequence[Entry]]:
    """The files of a revision once every digest is known."""

    def look(session: Session) -> tuple[Pinned, Sequence[Entry]]:
        pinned = pin(session, asked)
        return pinned, files.listed(session, pinned.resolved)

    pinned, entries = await waiting.read(asked.parts.sessions, look)
    if not files.all_known(entries):
        await building.hashed(asked)
        pinned, entries = await waiting.read(asked.parts.sessions, look)
    return pinned, entries

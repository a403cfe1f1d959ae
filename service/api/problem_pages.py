"""What each kind of problem means, at the address that its documents name as their type."""

import html
import inspect
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path
from fastapi.responses import HTMLResponse
from starlette.responses import JSONResponse, Response

from service import errors
from service.http.problems import answers, status_of

router = APIRouter(prefix="/problems", tags=["service"])

_Accept = Annotated[str, Header(description="`text/html` for a page; JSON otherwise.")]


@router.get("", name="problems", responses=answers(errors.Broken))
def every(accept: _Accept = "") -> Response:
    """List every kind of problem."""
    kinds = sorted(errors.leaves(), key=lambda kind: kind.slug)
    if "text/html" not in accept:
        return JSONResponse({"items": [_described(kind) for kind in kinds]})
    lines = (f'<li><a href="/problems/{kind.slug}">{kind.slug}</a></li>' for kind in kinds)
    return _page("Problems", f"<ul>{''.join(lines)}</ul>")


@router.get("/{slug}", name="problem", responses=answers(errors.ThingNotFound, errors.Broken))
def one(slug: Annotated[str, Path(examples=["state-moved"])], accept: _Accept = "") -> Response:
    """Explain one kind of problem."""
    kind = next((kind for kind in errors.leaves() if kind.slug == slug), None)
    if kind is None:
        raise errors.ThingNotFound("kind of problem", slug[:100])
    found = _described(kind)
    if "text/html" not in accept:
        return JSONResponse(found)
    paragraphs = "".join(f"<p>{html.escape(part)}</p>" for part in found["text"].split("\n\n"))
    return _page(
        found["title"], f"{paragraphs}<p>Status {found['status']}, <code>{slug}</code></p>"
    )


def _described(kind: type[errors.PatchbayError]) -> dict[str, Any]:
    text = inspect.cleandoc(kind.__doc__ or "")
    return {
        "type": f"/problems/{kind.slug}",
        "title": text.splitlines()[0].rstrip("."),
        "status": status_of(kind),
        "text": text,
    }


def _page(title: str, body: str) -> Response:
    name = html.escape(title)
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>'
        f"<h1>{name}</h1>{body}</html>"
    )

"""How a page is drawn: the templates, what they may call, and the headers that every page has."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Protocol
from urllib.parse import quote, urlencode

import jinja2
from fastapi import Depends, Query, Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from service import names
from service.http.deps import Reader
from service.registry import builds
from service.registry.access import Principal
from service.web.assets import Assets

FOLDER: Final = Path(__file__).parent / "templates"

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; "
    "style-src 'self'; "
    "script-src 'self'; "
    "img-src 'self' data:; "
    "connect-src 'self'; "
    "form-action 'self'; "
    "base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    # `same-origin`, not `no-referrer`: the latter turns the Origin of our own forms into null.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
    "Vary": "Cookie",
}


@dataclass(frozen=True, slots=True)
class Page:
    """A page that answers a request; `caller` is None where nobody was asked who they are."""

    request: Request
    caller: Principal | None

    @property
    def path(self) -> str:
        """The path that was asked for, as the navigation compares it."""
        return self.request.url.path

    @property
    def url(self) -> str:
        """Where this service is, without a slash at the end; for commands to copy."""
        return str(self.request.base_url).rstrip("/")

    def link(self, **changes: str | int | None) -> str:
        """The address of this page with some of its query changed; None takes a part away."""
        asked = {key: value for key, value in self.request.query_params.items() if value}
        changed = {**asked, **changes}
        query = urlencode({key: value for key, value in changed.items() if value is not None})
        path = quote(self.path)
        return f"{path}?{query}" if query else path

    def draw(self, template: str, *, status: int = 200, **shown: Any) -> HTMLResponse:
        """Draw a template with what it shows."""
        templates: jinja2.Environment = self.request.app.state.templates
        text = templates.get_template(template).render(page=self, **shown)
        return HTMLResponse(text, status, HEADERS)


async def _page(request: Request, caller: Reader) -> Page:
    return Page(request, caller)


ReaderPage = Annotated[Page, Depends(_page)]
"""The page to draw, for a caller who may read: who draws has checked."""

Words = Annotated[str, Query(alias="q", max_length=200)]
Label = Annotated[str | None, Query(max_length=63)]


def environment(assets: Assets) -> jinja2.Environment:
    """The templates; a name that a template misspells is an error, and all text is escaped."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["asset"] = assets.url
    made.filters.update(
        size=size,
        count=count,
        labels=labels,
        percent=percent,
        time=time,
        scale=scale,
        number=number,
        model_url=model_url,
        patch_url=patch_url,
        cosine=cosine,
        commit=commit,
        build_id=builds.hex_of,
    )
    return made


# ── how values are written ───────────────────────────────────────────────────────────────────

_THIN_SPACE: Final = "\u202f"
_UNIT_STEP: Final = 1000
_TENTH: Final = 0.1
_WHOLE: Final = 100
_COMMIT_DIGITS: Final = 40


def size(size_bytes: int) -> str:
    """A size for people, in decimal units: `12.3 MB`."""
    amount = float(size_bytes)
    if amount < _UNIT_STEP:
        return f"{size_bytes}{_THIN_SPACE}B"
    for unit in ("kB", "MB", "GB"):
        amount /= _UNIT_STEP
        if round(amount, 1) < _UNIT_STEP:
            return f"{amount:.1f}{_THIN_SPACE}{unit}"
    return f"{amount / _UNIT_STEP:.1f}{_THIN_SPACE}TB"


def count(amount: int) -> str:
    """A whole number with its thousands apart: `622 131`."""
    return f"{amount:,}".replace(",", _THIN_SPACE)


def percent(share: float) -> str:
    """A share as a percentage; small ones with more digits."""
    value = share * 100
    digits = 0 if abs(value) >= _WHOLE or not value else 1 if abs(value) >= 1 else 2
    return f"{value:.{digits}f}{_THIN_SPACE}%"


def number(value: float) -> str:
    """A measured number to three digits behind the point; very small ones in powers of ten."""
    return f"{value:.1e}" if 0 < abs(value) < _TENTH / 100 else f"{value:.3f}"


def time(when: datetime) -> Markup:
    """A moment to the minute, in UTC."""
    there = when.astimezone(UTC)
    machine, people = f"{there:%Y-%m-%dT%H:%M:%SZ}", f"{there:%Y-%m-%d %H:%M}"
    # Not `Markup.format`, which takes longer than the rest of a list's row.
    return Markup(f'<time datetime="{machine}">{people}</time>')  # noqa: S704  # digits alone


def labels(given: Sequence[str], address: str, active: str | None = None) -> Markup:
    """Labels as links to the list at `address` that holds what bears them."""
    if not given:
        return Markup("")
    written = Markup("").join(_label(each, address, each == active) for each in given)
    return Markup('<span class="labels">') + written + Markup("</span>")


@lru_cache(maxsize=4096)
def _label(text: str, address: str, active: bool) -> Markup:  # noqa: FBT001  # the cache's key
    # Many lines of a list bear the same few labels.
    link = Markup('<a class="label" href="{}?{}"{}>{}</a>')
    current = Markup(' aria-current="true"') if active else ""
    return link.format(address, urlencode({"label": text}), current, text)


def commit(recipe: str) -> str:
    """What Hub clients call a recipe: the first 40 hex digits of its digest."""
    return recipe.removeprefix("sha256:")[:_COMMIT_DIGITS]


class Likeness(Protocol):
    """A cosine, and one standard deviation of it where it is an estimate."""

    @property
    def cosine(self) -> float:
        """From -1 to 1."""

    @property
    def error(self) -> float:
        """0: it is exact."""


def cosine(of: Likeness) -> str:
    """A cosine; an estimate with what it may be off by, two standard deviations."""
    return f"{of.cosine:+.3f}" if of.error == 0 else f"{of.cosine:+.2f} ± {2 * of.error:.2f}"


def scale(value: Decimal | str) -> str:
    """A scale as recipes write it."""
    return names.scale_text(Decimal(value))


def model_url(reference: str) -> str:
    """The page of `namespace/name@number`."""
    name, _, number = reference.partition("@")
    return f"/models/{name}?version={number}"


def patch_url(reference: str) -> str:
    """The page of patch `namespace/name@number`."""
    name, _, number = reference.partition("@")
    return f"/patches/{name}?version={number}"

"""Hub addresses at the root of the application, matched on the path as it was sent.

A revision arrives quoted (`main%2Bfog%3D0.5`, a slash as `%2F`), and a server decodes the path
before it routes. So these routes match the raw path, whose every `/` parts two segments, and each
segment is unquoted by whoever reads it.
"""

import re
from collections.abc import MutableMapping
from typing import Any, Final
from urllib.parse import quote

from fastapi import APIRouter, FastAPI
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from service.hub import account, elsewhere, refusals, repos, resolve, tree
from service.names import RESERVED_NAMESPACES

_ADDRESS: Final = re.compile(
    r"/api/"
    r"|/(?:(?:datasets|spaces|kernels)/)?[^/]+(?:/[^/]+)?/resolve/"
    r"|/[^/]+/[^/]+\.git/"
)
_NOT_OURS: Final = RESERVED_NAMESPACES - {"api", "datasets", "spaces", "kernels"}


def install(app: FastAPI) -> None:
    """Answer Hub clients at the root of `app`; last, so that every other route goes first."""
    router = APIRouter(redirect_slashes=False)
    for noun in (account, repos, tree, resolve, elsewhere):
        router.include_router(noun.router)
    app.router.routes.append(_Hub(ExceptionMiddleware(router, handlers=refusals.HANDLERS)))


class _Hub(BaseRoute):
    """One route for all of the Hub's addresses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the address is the Hub's; inside, `path` is the raw one."""
        if scope["type"] != "http":
            return Match.NONE, {}
        raw = _raw_path(scope)
        if not _ADDRESS.match(raw) or raw.split("/")[1] in _NOT_OURS:
            return Match.NONE, {}
        return Match.FULL, {"path": raw}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the Hub does."""
        await self._app(scope, receive, send)


def _raw_path(scope: MutableMapping[str, Any]) -> str:
    raw: bytes | None = scope.get("raw_path")
    return raw.decode("ascii", "replace") if raw else quote(scope["path"])

"""What happens to every request, whatever it asks: an id, log fields, metrics, safe headers.

Pure ASGI: Starlette's `BaseHTTPMiddleware` runs each response body through a queue and a task.
"""

import re
import time
import uuid
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors, observability
from service.http import problems

log = observability.logger(__name__)

REQUEST_ID: Final = "X-Request-Id"
_WELL_FORMED: Final = re.compile(r"[A-Za-z0-9._-]{8,128}")

_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    # What may change, or depends on who asks, is kept by nobody unasked; blobs say otherwise.
    "Cache-Control": "no-cache",
}


class Doorway:
    """The first and the last thing that a request passes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, and answer it with a problem where that fails."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        passing = _Passing(scope, send, request_id)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, passing.send)
            except Exception as error:
                if passing.status is not None:  # too late for an answer: the server cuts it off
                    log.exception("response cut off", path=scope["path"])
                    raise
                answer = problems.crash(Request(scope, receive), error)
                await answer(scope, receive, passing.send)
            finally:
                passing.count()


class _Passing:
    """One request on its way: adds the headers to its response and notes what is measured."""

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self.status: int | None = None
        self._scope = scope
        self._send = send
        self._request_id = request_id
        self._began = time.perf_counter()

    async def send(self, message: Message) -> None:
        """Pass a part of the response on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID] = self._request_id
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            observability.request_seconds.labels(self._scope["method"], self._route()).observe(
                time.perf_counter() - self._began
            )
        await self._send(message)

    def count(self) -> None:
        """Count the request; status 0 stands for a caller who left before the answer."""
        observability.requests.labels(
            self._scope["method"], self._route(), str(self.status or 0)
        ).inc()

    def _route(self) -> str:
        # The route's pattern, never the path: a label for each name would never end. The route of
        # an included router knows only its own part of the pattern; FastAPI keeps the whole here.
        whole = self._scope.get("fastapi", {}).get("effective_route_context")
        route = whole or self._scope.get("route")
        return getattr(route, "path", None) or "none"


class BodyLimit:
    """Refuses bodies over a limit, but for the routes under `streamed`, which count themselves."""

    def __init__(self, app: ASGIApp, limit_bytes: int, streamed: tuple[str, ...]) -> None:
        self._app = app
        self._limit_bytes = limit_bytes
        self._streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through while its body is within the limit."""
        if scope["type"] != "http" or scope["path"].startswith(self._streamed):
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdigit() and int(announced) > self._limit_bytes:
            error = errors.UploadTooLarge(int(announced), self._limit_bytes)
            await problems.answer(Request(scope, receive), error)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit_bytes:
                # FastAPI turns whatever it meets while it reads a body into a 400, but for this.
                error = errors.UploadTooLarge(received, self._limit_bytes)
                raise HTTPException(413) from error
            return message

        await self._app(scope, counted, send)


def _request_id(scope: Scope) -> str:
    """The caller's own id of the request where it is one, else a new one."""
    given = Headers(scope=scope).get(REQUEST_ID, "")
    return given if _WELL_FORMED.fullmatch(given) else uuid.uuid4().hex

"""Answering with the file of a plan: 200, 206, 304 or 416, with ranges and validators.

A length is announced and kept. Where the bytes (`body.py`) cannot be read any more, or the client
takes none for `STALLED_AFTER_S`, the connection is cut: a short body must never look whole.
"""

import base64
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

import anyio
import anyio.lowlevel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service import errors, observability
from service.http import problems
from service.http.body import Body, Transfers
from service.http.protocol import ABORT, ZERO_COPY
from service.http.ranges import has_it_already, range_applies, requested_range
from service.layout.splice import Plan
from service.names import ByteRange, Digest

log = observability.logger(__name__)

STALLED_AFTER_S: Final = 120.0
"""A client that takes not one chunk of 1 MiB for so long is cut off."""

_NOT_WITH_304: Final = ("content-type", "content-length", "content-disposition", "repr-digest")


class PlanResponse(Response):
    """Answers a GET or HEAD with the file that `plan` describes, or the part that was asked for."""

    def __init__(
        self,
        request: Request,
        plan: Plan,
        parts: Transfers,
        *,
        headers: Mapping[str, str] | None = None,
        media_type: str = "application/octet-stream",
        sha256: Digest | None = None,
        stalled_after_s: float = STALLED_AFTER_S,
    ) -> None:
        super().__init__(headers=headers, media_type=media_type)
        self._request = request
        self._plan = plan
        self._parts = parts
        self._stalled_after_s = stalled_after_s
        self.headers["ETag"] = f'"{plan.etag}"'
        self.headers["Accept-Ranges"] = "bytes"
        if known := sha256 or plan.sha256:
            self.headers["Repr-Digest"] = _repr_digest(known)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer that the request's method and headers call for."""
        asked = self._request.headers
        if has_it_already(asked.get("if-none-match"), self._plan.etag):
            await self._not_modified(scope, receive, send)
            return
        try:
            part = self._part()
        except errors.BadRange as error:
            await self._refuse(error, scope, receive, send)
            return
        self._announce(part)
        if self._request.method == "HEAD" or not part.size_bytes:
            await self._send_head(send)
            await send({"type": "http.response.body", "body": b""})
        else:
            await self._send_part(part, scope, receive, send)
        if self.background is not None:
            await self.background()

    # ── which answer ─────────────────────────────────────────────────────────────────────────

    def _part(self) -> ByteRange:
        """The bytes to send; a Range counts for GET alone (RFC 9110 section 14.2)."""
        asked, whole = self._request.headers, ByteRange(0, self._plan.size_bytes)
        if self._request.method != "GET":
            return whole
        if not range_applies(asked.get("if-range"), self._plan.etag):
            return whole
        found = requested_range(asked.get("range"), self._plan.size_bytes)
        if found is None:
            return whole
        self.status_code = 206
        return found

    def _announce(self, part: ByteRange) -> None:
        self.headers["Content-Length"] = str(part.size_bytes)
        if self.status_code == 206:  # noqa: PLR2004
            size_bytes = self._plan.size_bytes
            self.headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{size_bytes}"

    async def _not_modified(self, scope: Scope, receive: Receive, send: Send) -> None:
        kept = {name: text for name, text in self.headers.items() if name not in _NOT_WITH_304}
        await Response(status_code=304, headers=kept)(scope, receive, send)

    async def _refuse(
        self, error: errors.BadRange, scope: Scope, receive: Receive, send: Send
    ) -> None:
        answer = problems.answer(self._request, error)
        answer.headers["Content-Range"] = f"bytes */{self._plan.size_bytes}"
        answer.headers["Accept-Ranges"] = "bytes"
        await answer(scope, receive, send)

    # ── the bytes ────────────────────────────────────────────────────────────────────────────

    async def _send_head(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )

    async def _send_part(self, part: ByteRange, scope: Scope, receive: Receive, send: Send) -> None:
        segments = self._plan.cut(part.start, part.end)
        with ExitStack() as stack:
            zero_copy = ZERO_COPY in (scope.get("extensions") or {})
            body = await Body.open(stack, segments, self._parts, zero_copy=zero_copy)
            failure: Exception | None = None
            async with anyio.create_task_group() as group:

                async def leave_with_the_client() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    group.cancel_scope.cancel()

                group.start_soon(leave_with_the_client)
                try:
                    await self._send_head(send)
                    await body.send(send, self._stalled_after_s)
                except Exception as error:  # noqa: BLE001  # out of the task group as it is
                    failure = error
                group.cancel_scope.cancel()
        if failure is not None:
            await _cut_off(scope, failure)


async def _cut_off(scope: Scope, failure: Exception) -> None:
    """End the connection in mid-body, so that no client takes what it has for the whole."""
    abort = (scope.get("extensions") or {}).get(ABORT)
    if abort is None:
        # The server closes a connection whose response raises, once it has sent what it holds.
        raise failure
    log.warning("download cut off", path=scope["path"], reason=repr(failure))
    abort["abort"]()
    await anyio.lowlevel.checkpoint()  # lets the server notice before it asks for the rest


def _repr_digest(sha256: Digest) -> str:
    """RFC 9530, of the whole file whichever part is sent."""
    content = bytes.fromhex(sha256.removeprefix("sha256:"))
    return f"sha-256=:{base64.b64encode(content).decode('ascii')}:"

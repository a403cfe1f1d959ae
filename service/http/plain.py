"""Answering with a blob as it is: from the object store itself where it hands out, else from here.

A GET may be answered 307, to a URL that the store has signed; its `ETag` and `Repr-Digest` are
those of the file that it leads to, for the store has others. All that depends on validators is
answered here, so that only one party judges them: 304, HEAD, `If-Range`, a range outside the file.
"""

from collections.abc import Mapping
from typing import Final

from anyio import to_thread
from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from service import errors
from service.http.deps import Parts
from service.http.ranges import has_it_already, requested_range
from service.http.sender import PlanResponse
from service.layout.splice import plan_plain
from service.names import Digest

SIGNED_FOR_S: Final = 900
"""How long a URL may be used to begin a download; one that breaks off asks here again."""

_BYTES: Final = "application/octet-stream"


class PlainResponse(PlanResponse):
    """Answers a GET or HEAD with a blob, or tells where in the store it is."""

    def __init__(
        self,
        request: Request,
        parts: Parts,
        digest: Digest,
        size_bytes: int,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(request, plan_plain(digest, size_bytes), parts, headers=headers)
        self._asked = request
        self._store = parts.store
        self._limiter = parts.transfers
        self._digest = digest
        self._size_bytes = size_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; raises `BlobNotFound`, `DamagedBlob` and `StoreUnavailable`."""
        url = None
        if self._asked.method == "GET" and not self._is_judged_here():
            url = await to_thread.run_sync(self._signed, limiter=self._limiter)
        if url is None:
            await super().__call__(scope, receive, send)
            return
        told = {name: self.headers[name] for name in ("ETag", "Repr-Digest")}
        # The URL ends, so nobody may keep the answer, though the file itself never changes.
        told |= {"Location": url, "Cache-Control": "no-store"}
        await Response(status_code=307, headers=told)(scope, receive, send)

    def _is_judged_here(self) -> bool:
        asked = self._asked.headers
        known = has_it_already(asked.get("if-none-match"), self._digest.removeprefix("sha256:"))
        try:
            requested_range(asked.get("range"), self._size_bytes)
        except errors.BadRange:
            return True
        return known or "if-range" in asked

    def _signed(self) -> str | None:
        """A URL of the store, which was asked whether it has the blob; None where it gives none."""
        url = self._store.presign_get(self._digest, expires_s=SIGNED_FOR_S, content_type=_BYTES)
        if url is None:
            return None
        stored = self._store.stat(self._digest)
        if stored is None:
            raise errors.BlobNotFound(self._digest)
        if stored != self._size_bytes:
            raise errors.DamagedBlob(self._digest)
        return url

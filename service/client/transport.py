"""Requests that are tried again where that is safe, and answers read into schemas."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

import httpx2
from pydantic import BaseModel, TypeAdapter, ValidationError

from service.client.problem import (
    ServiceProblem,
    of_response,
    store_unreachable,
    unreachable,
    unreadable,
)
from service.schemas.wire import Page

TRY_AGAIN: Final = frozenset({429, 502, 503, 504})
BACKOFF_S: Final = (0.2, 1.0, 3.0)
MAX_RETRY_AFTER_S: Final = 30.0

_SAFE_TO_REPEAT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
_PAGE = 100

Answer = TypeVar("Answer", bound=BaseModel)
Body = Callable[[], Iterable[bytes]]
"""Gives a request's body from its beginning, as often as it is called."""


@dataclass(frozen=True)
class Transport:
    """One service, at `http.base_url`; `sleep` waits between tries."""

    http: httpx2.Client
    sleep: Callable[[float], None] = field(default=time.sleep)

    # ── JSON ─────────────────────────────────────────────────────────────────────────────────

    def get(self, path: str, form: type[Answer], **options: Any) -> Answer:
        """GET `path` and read the answer."""
        return self.ask("GET", path, form, **options)

    def ask(
        self,
        method: str,
        path: str,
        form: type[Answer],
        *,
        body: BaseModel | None = None,
        **rest: Any,
    ) -> Answer:
        """Send a request and read the answer; raises `ServiceProblem`."""
        return read(self.send(method, path, body=body, **rest), form)

    def send(
        self, method: str, path: str, *, body: BaseModel | None = None, **rest: Any
    ) -> httpx2.Response:
        """Send a request and read its whole answer; raises `ServiceProblem`."""
        json = None if body is None else body.model_dump(mode="json", exclude_unset=True)
        with self.stream(method, path, json=json, **rest) as response:
            try:
                response.read()
            except httpx2.TransportError as error:
                raise unreachable(str(self.http.base_url), error) from error
            return response

    def pages(
        self, path: str, form: type[Answer], params: Mapping[str, Any] | None = None
    ) -> Iterator[Answer]:
        """Every item of a list, page by page."""
        asked = {name: value for name, value in (params or {}).items() if value is not None}
        asked.setdefault("limit", _PAGE)
        while True:
            response = self.send("GET", path, params=asked)
            page = read(response, Page[form])  # type: ignore[valid-type]  # a type at run time
            yield from page.items
            if page.next is None:
                return
            asked["cursor"] = page.next

    # ── anything ─────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def stream(
        self, method: str, path: str, *, content: Body | None = None, **options: Any
    ) -> Iterator[httpx2.Response]:
        """Send a request; its answer is not read yet. Raises `ServiceProblem`.

        Tried again after a pause where no connection came about, where the service says that it
        cannot answer now, and, if repeating is safe, where the connection broke.
        """
        response = self._tried(method, path, content, options)
        try:
            if response.status_code >= 400:  # noqa: PLR2004 - where errors begin
                raise of_response(response)
            yield response
        finally:
            response.close()

    def _tried(
        self, method: str, path: str, content: Body | None, options: Mapping[str, Any]
    ) -> httpx2.Response:
        options = dict(options)
        follow = options.pop("follow_redirects", False)
        for pause_s in (*BACKOFF_S, None):
            request = self.http.build_request(
                method, path, content=content() if content else None, **options
            )
            own = _origin(request.url) == _origin(self.http.base_url)
            if not own:  # the token is the service's alone, and a signed URL needs none
                request.headers.pop("Authorization", None)
            try:
                response = self.http.send(request, stream=True, follow_redirects=follow)
            except httpx2.TransportError as error:
                if pause_s is None or not _may_repeat(request, error):
                    told = unreachable if own else store_unreachable
                    raise told(_origin(request.url), error) from error
                self.sleep(pause_s)
                continue
            if response.status_code not in TRY_AGAIN or pause_s is None:
                return response
            asked_s = retry_after_s(response)
            response.close()
            self.sleep(max(pause_s, asked_s))
        raise AssertionError  # the last round returns or raises


def read(response: httpx2.Response, form: type[Answer]) -> Answer:
    """Read a JSON answer; raises `ServiceProblem`."""
    try:
        return TypeAdapter(form).validate_json(response.content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise unreadable(str(response.request.url), f"{where} {first['msg']}".strip()) from error


def retry_after_s(response: httpx2.Response) -> float:
    """How long the service asks to wait (RFC 9110 section 10.2.3), at most half a minute."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        wait_s = parsedate_to_datetime(text).timestamp() - time.time()
    except ValueError:
        return 0.0
    return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S)


def etag(response: httpx2.Response) -> str | None:
    """The entity tag of an answer, in its quotes."""
    found: str | None = response.headers.get("ETag")
    return found


def _origin(url: httpx2.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode()}"


def _may_repeat(request: httpx2.Request, error: httpx2.TransportError) -> bool:
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError):
        return False
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return True  # nothing was sent
    return request.method in _SAFE_TO_REPEAT or "Idempotency-Key" in request.headers


__all__ = ["Answer", "Body", "ServiceProblem", "Transport", "etag", "read", "retry_after_s"]

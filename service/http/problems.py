"""Problem documents (RFC 9457): the only table from kind of error to status, and the handlers.

A problem's `type` is `/problems/{slug}`, its `instance` the request's id, and the error's fields
are its extension members. Where HTTP alone says it all (no such address, wrong method), the type is
`about:blank`, as RFC 9457 section 4.2.1 has it.
"""

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import psycopg
import sqlalchemy.exc
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from service import errors, observability
from service.errors import PatchbayError
from service.registry.operations import problem_of

log = observability.logger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

STATUS: Final[Mapping[type[PatchbayError], int]] = {
    errors.NotFound: 404,
    errors.Gone: 410,
    errors.Invalid: 422,
    errors.BadRequest: 400,
    errors.BodyCutOff: 400,
    errors.BadRange: 416,
    errors.Conflict: 409,
    errors.Stale: 412,
    errors.PreconditionMissing: 428,
    errors.TooLarge: 413,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.Busy: 429,
    errors.Unavailable: 503,
    errors.StorageFull: 507,
    errors.Broken: 500,
}
"""Each kind's status; a leaf stands here only where HTTP has a closer one than its kind's."""

RETRY_AFTER_S: Final[Mapping[int, int]] = {429: 5, 503: 2}
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
CHALLENGE: Final = 'Bearer realm="patchbay"'

DATABASE_DOWN: Final = (
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.TimeoutError,
    psycopg.OperationalError,
    psycopg.InterfaceError,
)
"""What the database's drivers raise while it does not answer."""

Page = Callable[[Request, Mapping[str, Any]], Response | None]
"""Draws a problem for a browser, or answers None where JSON is better."""


def status_of(kind: type[PatchbayError]) -> int:
    """The HTTP status of an error; raises `KeyError` for a kind that the table lacks."""
    return next(STATUS[base] for base in kind.__mro__ if base in STATUS)


def document(error: PatchbayError, request_id: str) -> dict[str, Any]:
    """The problem document of an error."""
    return {
        **problem_of(error),
        "status": status_of(type(error)),
        "instance": request_id,
    }


def response(found: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """Send a problem document with the headers that its status calls for."""
    status = int(found["status"])
    sent = dict(headers or {})
    if status in RETRY_AFTER_S:
        sent.setdefault("Retry-After", str(RETRY_AFTER_S[status]))
    if status == HTTPStatus.UNAUTHORIZED:
        sent.setdefault("WWW-Authenticate", CHALLENGE)
    sent.setdefault("Cache-Control", "no-store")
    content = json.dumps(found, default=str, ensure_ascii=False).encode("utf-8", "replace")
    return Response(content, status, sent, media_type=MEDIA_TYPE)


def answer(request: Request, error: PatchbayError) -> Response:
    """Answer a request with an error, drawn for a browser where somebody knows how to."""
    return _drawn(request, document(error, request_id(request)))


def request_id(request: Request) -> str:
    """The id that the request is logged under."""
    found: str = getattr(request.state, "request_id", "")
    return found


def crash(request: Request, error: Exception) -> Response:
    """Answer a request that failed for a reason nobody foresaw; what it was stands in the log."""
    log.error("request failed", exc_info=error, method=request.method, path=request.url.path)
    return _drawn(request, _plain(request, 500, "the service failed; its log names this instance"))


def install(app: FastAPI, page: Page | None = None) -> None:
    """Answer every error of `app` with a problem; `page` draws them for browsers."""
    app.state.problem_page = page
    app.add_exception_handler(PatchbayError, _expected)
    app.add_exception_handler(RequestValidationError, _fields_invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(sqlalchemy.exc.DataError, _out_of_range)
    for kind in DATABASE_DOWN:
        app.add_exception_handler(kind, _database_down)


def answers(*kinds: type[PatchbayError]) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that may raise these errors, or any error of these kinds."""
    by_status: dict[int, list[str]] = {}
    for kind in kinds:
        told = f"`{kind.slug}`: {_title(kind)}." if kind.slug else f"{_title(kind)}."
        by_status.setdefault(status_of(kind), []).append(told)
    return {status: described("\n\n".join(told)) for status, told in sorted(by_status.items())}


def described(description: str) -> dict[str, Any]:
    """How a problem stands in the OpenAPI document."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}


def _title(kind: type[PatchbayError]) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0].rstrip(".")


def _drawn(
    request: Request, found: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    page: Page | None = getattr(request.app.state, "problem_page", None)
    drawn = page(request, found) if page else None
    return response(found, headers) if drawn is None else drawn


def _expected(request: Request, error: Exception) -> Response:
    assert isinstance(error, PatchbayError)  # noqa: S101  # it is registered for no other
    if isinstance(error, errors.Broken):
        log.error("request failed", problem=error.slug, exc_info=error)
    elif isinstance(error, errors.Unavailable | errors.StorageFull):
        # Its cause may name what no caller should read: a path, a host.
        log.warning(
            "request refused",
            problem=error.slug,
            detail=str(error),
            cause=str(error.__cause__ or ""),
        )
    return answer(request, error)


def _database_down(request: Request, error: Exception) -> Response:
    log.warning("the database does not answer", error=str(error).splitlines()[0])
    return answer(request, errors.DatabaseUnavailable())


def _out_of_range(request: Request, error: Exception) -> Response:
    log.warning("a value the database cannot hold", error=str(error).splitlines()[0])
    told = "a value is out of range or holds a NUL character, which cannot be stored; correct it"
    return answer(request, errors.BadRequest(told))


def _fields_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # as above
    # Neither the input nor the rule's context: the one may hold a secret, the other any object.
    found = [
        {
            "field": ".".join(str(part) for part in wrong["loc"]),
            "message": wrong["msg"],
            "rule": wrong["type"],
        }
        for wrong in error.errors()
    ]
    return answer(request, errors.FieldsInvalid(found))


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # as above
    if isinstance(error.__cause__, PatchbayError):
        return answer(request, error.__cause__)
    path, headers = request.url.path, dict(error.headers or {})
    match error.status_code:
        case 404:
            detail = f"there is nothing at {path}; /openapi.json lists every address"
        case 405:
            allowed = ", ".join(_methods_of(request))
            headers = {"Allow": allowed}
            detail = f"{request.method} is not possible at {path}; use {allowed}"
        case _:
            detail = error.detail
    return _drawn(request, _plain(request, error.status_code, detail), headers)


def _methods_of(request: Request) -> list[str]:
    """Every method that the request's address takes: Starlette tells those of one route only."""
    routes = request.app.routes
    return [
        method
        for method in METHODS
        if any(r.matches({**request.scope, "method": method})[0] is Match.FULL for r in routes)
    ]


def _plain(request: Request, status: int, detail: str) -> dict[str, Any]:
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request_id(request),
    }

"""Errors as Hub clients read them: the code and the message in headers, for HEAD too.

Clients raise by `X-Error-Code` (RepoNotFound, RevisionNotFound, EntryNotFound) and show
`X-Error-Message`. What a client may wait for is 503 on HEAD and 429 on GET, with `Retry-After`: it
tries a HEAD again after either, but a GET after 429 alone.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service import errors, observability
from service.errors import PatchbayError
from service.http.problems import CHALLENGE, DATABASE_DOWN, status_of

log = observability.logger(__name__)

RETRY_AFTER_S: Final = 2
BAD_TOKEN: Final = "Invalid credentials in Authorization header"  # noqa: S105
"""Clients know this very text: with another they would say that the repository is missing."""


class HubError(Exception):
    """An answer that has its own code among the Hub's."""

    def __init__(
        self, status: int, code: str | None, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {})


def repo_not_found(message: str) -> HubError:
    """No such model."""
    return HubError(404, "RepoNotFound", message)


def revision_not_found(message: str) -> HubError:
    """No such branch, tag, commit or recipe."""
    return HubError(404, "RevisionNotFound", message)


def entry_not_found(message: str, commit: str) -> HubError:
    """No such file; with the commit, clients remember that it lacks it."""
    return HubError(404, "EntryNotFound", message, {"X-Repo-Commit": commit})


def _answer(
    request: Request, status: int, code: str | None, message: str, headers: Mapping[str, str]
) -> Response:
    sent = {"X-Error-Message": _header_text(message), "Cache-Control": "no-store", **headers}
    if code is not None:
        sent["X-Error-Code"] = code
    if status in {429, 503}:
        status = 429 if request.method == "GET" else status
        sent.setdefault("Retry-After", str(RETRY_AFTER_S))
    if status == 401:  # noqa: PLR2004
        sent["WWW-Authenticate"] = CHALLENGE
    return JSONResponse({"error": message}, status, sent)


def _header_text(message: str) -> str:
    """One line that a header can carry (RFC 9110 section 5.5)."""
    plain = message.encode("ascii", "replace").decode()
    return "".join(sign if sign.isprintable() else " " for sign in plain)[:1000]


def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, HubError)  # noqa: S101  # it is registered for no other
    return _answer(request, error.status, error.code, error.message, error.headers)


def _expected(request: Request, error: Exception) -> Response:
    assert isinstance(error, PatchbayError)  # noqa: S101  # as above
    status, code, message = status_of(type(error)), None, str(error)
    match error:
        case errors.TokenInvalid():
            message = BAD_TOKEN
        case errors.TokenMissing():
            code = "RepoNotFound"
        case errors.BuildNotReady():
            # Clients show the message of this code, and hide that of a plain 403.
            status, code = 401, "GatedRepo"
            message = "this recipe is not built yet; show a token (HF_TOKEN) to have it built"
        case errors.Broken():
            log.error("request failed", problem=error.slug, exc_info=error)
        case errors.BuildFailed():
            code = "RevisionNotFound"
        case _:
            pass
    return _answer(request, status, code, message, {})


def _database_down(request: Request, error: Exception) -> Response:
    log.warning("the database does not answer", error=str(error).splitlines()[0])
    return _expected(request, errors.DatabaseUnavailable())


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # as above
    return _answer(request, error.status_code, None, error.detail, error.headers or {})


def _fields_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # as above
    wrong = "; ".join(f"{part['loc'][-1]}: {part['msg']}" for part in error.errors())
    return _answer(request, 400, None, wrong, {})


HANDLERS: Final[Mapping[Any, Callable[[Request, Exception], Response | Awaitable[Response]]]] = {
    HubError: _told,
    PatchbayError: _expected,
    HTTPException: _http,
    RequestValidationError: _fields_invalid,
    **dict.fromkeys(DATABASE_DOWN, _database_down),
}

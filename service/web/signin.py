"""Signing in with a token: checked as the API checks it, kept in a cookie that no script reads."""

import re
from http import HTTPStatus
from typing import Annotated, Final
from urllib.parse import parse_qsl, urlsplit

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse

from service import errors
from service.http.deps import TOKEN_COOKIE, DbSession
from service.registry import access
from service.schemas.operations import Scope
from service.web.assets import GET
from service.web.drawing import Page

KEPT_S: Final = 30 * 24 * 3600
"""How long a browser keeps the token; the token itself may end sooner."""

_FIELDS: Final = 10
_FIELD_CHARACTERS: Final = 4000
# Browsers drop tabs and newlines from addresses and read \ as /, so `/\t/host` leads elsewhere.
_LOCAL: Final = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")

router = APIRouter(include_in_schema=False)

Next = Annotated[str, Query(max_length=_FIELD_CHARACTERS)]


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form; raises `BadRequest` where it is none, or another site sent it."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host", ""):
        raise errors.BadRequest("this form was sent by another site; open /login here")
    try:
        pairs = parse_qsl((await request.body()).decode("ascii"), max_num_fields=_FIELDS)
    except ValueError as error:
        raise errors.BadRequest("the form cannot be read; open /login again") from error
    return {name: value[:_FIELD_CHARACTERS] for name, value in pairs}


Form = Annotated[dict[str, str], Depends(_form)]


@router.api_route("/login", methods=GET)
async def form(
    request: Request, *, next_page: Annotated[Next, Query(alias="next")] = "/", ended: bool = False
) -> Response:
    """Ask for a token."""
    told = "Your token has ended: it expired or was revoked." if ended else ""
    return _asking(request, next_page, told)


@router.post("/login")
def sign_in(request: Request, fields: Form, session: DbSession) -> Response:
    """Check a token and keep it in a cookie."""
    text, onward = fields.get("token", "").strip(), fields.get("next", "/")
    try:
        access.identify(session, text).require(Scope.READ)
    except (errors.TokenInvalid, errors.ScopeMissing) as error:
        told = str(error)
        return _asking(request, onward, told[:1].upper() + told[1:] + ".", HTTPStatus.FORBIDDEN)
    answer = RedirectResponse(safe_next(onward), HTTPStatus.SEE_OTHER)
    answer.headers["Cache-Control"] = "no-store"
    answer.set_cookie(
        TOKEN_COOKIE,
        text,
        max_age=KEPT_S,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/logout")
async def sign_out(fields: Form) -> Response:
    """Forget the token."""
    answer = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
    answer.headers["Cache-Control"] = "no-store"
    answer.delete_cookie(TOKEN_COOKIE, httponly=True, samesite="strict")
    return answer


def safe_next(address: str) -> str:
    """Where to go on: an address of this very service, else the first page."""
    if not _LOCAL.fullmatch(address) or address.startswith(("/login", "/logout")):
        return "/"
    return address


def _asking(request: Request, onward: str, told: str, status: int = HTTPStatus.OK) -> Response:
    answer = Page(request, None).draw(
        "login.html", status=status, onward=safe_next(onward), told=told
    )
    answer.headers["Cache-Control"] = "no-store"
    return answer

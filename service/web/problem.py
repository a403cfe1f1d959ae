"""What a browser sees when something goes wrong; and the way to the sign-in, where that helps."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from service.http.deps import TOKEN_COOKIE
from service.http.problems import RETRY_AFTER_S
from service.web.drawing import Page

_API: Final = ("/v1/", "/static/", "/healthz", "/readyz", "/metrics")
_ASKING: Final = frozenset({"GET", "HEAD"})


def drawn(request: Request, found: Mapping[str, Any]) -> Response | None:
    """Draw a problem for a browser; None for the API, whose answers are the same for everybody."""
    accepted = request.headers.get("accept", "")
    if "text/html" not in accepted or request.url.path.startswith(_API):
        return None
    status = int(found["status"])
    page = Page(request, None)
    if status == HTTPStatus.UNAUTHORIZED and request.method in _ASKING:
        if request.headers.get("sec-fetch-site") == "cross-site":
            # A link on another site: the browser held our cookie back. Asked by our own page it
            # sends it.
            return page.draw("onward.html")
        return to_login(request, ended=TOKEN_COOKIE in request.cookies)
    answer = page.draw("problem.html", status=status, problem=found)
    answer.headers["Cache-Control"] = "no-store"
    if status in RETRY_AFTER_S:
        answer.headers["Retry-After"] = str(RETRY_AFTER_S[status])
    return answer


def to_login(request: Request, *, ended: bool) -> Response:
    """Send a browser to the sign-in and back here; a token that `ended` is forgotten."""
    asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    query = urlencode({"next": asked, **({"ended": "1"} if ended else {})})
    answer = RedirectResponse(f"/login?{query}", HTTPStatus.SEE_OTHER)
    answer.headers["Cache-Control"] = "no-store"
    if ended:
        answer.delete_cookie(TOKEN_COOKIE, httponly=True, samesite="strict")
    return answer

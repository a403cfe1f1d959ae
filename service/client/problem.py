"""The one exception that a caller of the client meets."""

import json
from collections.abc import Mapping
from typing import Any, Final

import httpx2

from service.schemas.operations import OperationView

UNREACHABLE: Final = "unreachable"
UNREADABLE: Final = "unreadable-answer"

_MAX_PROBLEM_BYTES = 1 << 20
_STANDARD = frozenset({"type", "title", "status", "detail", "instance"})


class ServiceProblem(Exception):
    """What the service answered instead of what was asked for (RFC 9457).

    `status` is 0 where no answer came at all; `fields` are the problem's extension members.
    """

    def __init__(
        self, status: int, slug: str, detail: str, fields: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.detail = detail
        self.fields = dict(fields or {})

    def json(self) -> dict[str, Any]:
        """The problem as JSON."""
        return {"status": self.status, "slug": self.slug, "detail": self.detail} | self.fields


class OperationProblem(ServiceProblem):
    """A piece of long work that failed or was cancelled; `operation` as it ended."""

    def __init__(self, operation: OperationView) -> None:
        problem = operation.problem or {}
        super().__init__(
            200,
            _slug(problem) or f"operation-{operation.state}",
            str(problem.get("detail") or f"operation {operation.id} was {operation.state}"),
            {"operation": operation.id} | _extensions(problem),
        )
        self.operation = operation


def of_response(response: httpx2.Response) -> ServiceProblem:
    """The problem that a response carries; a proxy in between may have sent any other body."""
    text = b""
    for chunk in response.iter_bytes():
        text += chunk
        if len(text) > _MAX_PROBLEM_BYTES:
            break
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        found = {"detail": text[:300].decode("utf-8", "replace").strip()}
    url = response.request.url.copy_with(query=None)  # it may be signed
    detail = found.get("detail") or f"{response.request.method} {url} answered without a reason"
    return ServiceProblem(
        response.status_code,
        _slug(found) or f"http-{response.status_code}",
        str(detail),
        _extensions(found),
    )


def unreachable(url: str, error: Exception) -> ServiceProblem:
    """No answer came from `url`."""
    reason = str(error) or type(error).__name__
    return ServiceProblem(
        0, UNREACHABLE, f"no answer from {url} ({reason}); is `patchbay serve` running there?"
    )


def store_unreachable(url: str, error: Exception) -> ServiceProblem:
    """No answer came from the store at `url`, where the service has sent us."""
    reason = str(error) or type(error).__name__
    return ServiceProblem(
        0,
        UNREACHABLE,
        f"no answer from the blob store at {url} ({reason}); if it cannot be reached from here, "
        "set PATCHBAY_S3_PUBLIC_URL, or PATCHBAY_S3_PRESIGN=false, where the service runs",
    )


def unreadable(url: str, reason: str) -> ServiceProblem:
    """An answer came that does not have the form it should have."""
    return ServiceProblem(
        200, UNREADABLE, f"{url} answered in a form that this client cannot read: {reason}"
    )


def _slug(found: Mapping[str, Any]) -> str:
    kind = str(found.get("type") or "")
    return kind.rpartition("/")[2] if "/problems/" in kind else ""


def _extensions(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in _STANDARD}

"""Who is asking, as `hf auth whoami` shows it."""

from typing import Any

from fastapi import APIRouter

from service import errors
from service.http.deps import Caller
from service.schemas.operations import Scope

router = APIRouter()


@router.get("/api/whoami-v2")
async def whoami(caller: Caller) -> dict[str, Any]:
    """Describe the token's holder."""
    if caller.is_anonymous:
        raise errors.TokenInvalid
    may_write = bool(caller.scopes & {Scope.PUBLISH, Scope.MOVE, Scope.ADMIN})
    token = {"displayName": caller.id, "role": "write" if may_write else "read"}
    return {
        "type": "user",
        "id": caller.id,
        "name": caller.id,
        "fullname": caller.id,
        "email": None,
        "orgs": [],
        "auth": {"type": "access_token", "accessToken": token},
    }

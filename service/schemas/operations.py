"""Operations, workers, tokens, health."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from service.schemas.wire import Body, Moment, View


class State(StrEnum):
    """Where an operation stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether it will never change again."""
        return self not in {State.QUEUED, State.RUNNING}


class OperationView(View):
    """One piece of long work."""

    id: str
    kind: str
    subject: str
    state: State
    progress: float = Field(ge=0, le=1)
    message: str
    attempt: int
    result: dict[str, Any] | None = Field(description="Links, and the id or version made.")
    problem: dict[str, Any] | None
    created_by: str
    created_at: Moment
    started_at: Moment | None
    ended_at: Moment | None


class Scope(StrEnum):
    """What a token may do."""

    READ = "read"
    PUBLISH = "publish"
    MOVE = "move"
    ADMIN = "admin"


class MintToken(Body):
    """A token to make."""

    name: str = Field(min_length=1, max_length=100)
    scopes: list[Scope] = Field(min_length=1)
    namespace_pattern: str | None = Field(
        default=None, max_length=100, description="Glob of the namespaces it may change; null: all."
    )
    expires_in_days: int | None = Field(default=None, ge=1, le=3650)


class TokenView(View):
    """A token, without its text."""

    id: int
    name: str
    scopes: list[Scope]
    namespace_pattern: str | None
    created_by: str
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None
    used_at: Moment | None


class MintedToken(TokenView):
    """A new token; its text is shown this once."""

    token: str


class Readiness(View):
    """Which parts behind the service answer."""

    ready: bool
    parts: dict[str, str]

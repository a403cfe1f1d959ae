"""Who is asking, and what they may do."""

from dataclasses import dataclass

from service.errors.tree import Forbidden, Unauthenticated


@dataclass(eq=False)
class TokenMissing(Unauthenticated):
    """The request needs a token."""

    scope: str
    slug = "token-missing"

    def __str__(self) -> str:
        return f"this needs a token with scope {self.scope!r}; send Authorization: Bearer TOKEN"


@dataclass(eq=False)
class TokenInvalid(Unauthenticated):
    """The token is not known, has expired or was revoked."""

    slug = "token-invalid"

    def __str__(self) -> str:
        return "the token is not known, has expired or was revoked; ask an admin for a new one"


@dataclass(eq=False)
class ScopeMissing(Forbidden):
    """The token does not allow this."""

    scope: str
    namespace: str | None = None
    slug = "scope-missing"

    def __str__(self) -> str:
        where = f" in namespace {self.namespace!r}" if self.namespace else ""
        return f"the token has no scope {self.scope!r}{where}; use one that has it"

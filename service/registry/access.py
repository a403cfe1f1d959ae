"""Principals, scopes and tokens: mint, check, revoke."""

import fnmatch
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.access import Token
from service.schemas.operations import Scope

PREFIX: Final = "pb_"
USED_EVERY: Final = timedelta(minutes=1)  # how exact `used_at` is: not a write per request


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking, and what they may do."""

    id: str
    scopes: frozenset[Scope]
    namespace_pattern: str | None = None
    is_anonymous: bool = False
    """Whether no token was shown; not told by the name, which a token may have too."""

    def require(self, scope: Scope, namespace: str | None = None) -> None:
        """Check that the caller may do this; raises `TokenMissing` or `ScopeMissing`.

        `admin` implies every scope. The namespace pattern binds changes, not reading.
        """
        if scope not in self.scopes and Scope.ADMIN not in self.scopes:
            if self.is_anonymous:
                raise errors.TokenMissing(scope.value)
            raise errors.ScopeMissing(scope.value)
        if scope is Scope.READ or namespace is None or self.namespace_pattern is None:
            return
        if not fnmatch.fnmatchcase(namespace.lower(), self.namespace_pattern.lower()):
            raise errors.ScopeMissing(scope.value, namespace)


OWNER: Final = Principal("owner", frozenset(Scope))


def anonymous(*, may_read: bool) -> Principal:
    """A caller without a token."""
    scopes = frozenset({Scope.READ} if may_read else ())
    return Principal("anonymous", scopes, is_anonymous=True)


def mint(
    session: Session,
    name: str,
    scopes: Sequence[Scope],
    *,
    by: Principal,
    namespace_pattern: str | None = None,
    expires_in: timedelta | None = None,
    text: str | None = None,
) -> tuple[Token, str]:
    """Make a token; its text is returned once and kept only as a hash.

    Who is bound to a namespace pattern makes tokens bound to the same one. `text` is for the first
    start alone, which must find the owner token that its home holds. Raises `ScopeMissing`.
    """
    _check_bound_alike(by, namespace_pattern)
    text = text or PREFIX + secrets.token_urlsafe(32)
    token = Token(
        name=name,
        sha256=_hashed(text),
        scopes=[scope.value for scope in dict.fromkeys(scopes)],
        namespace_pattern=namespace_pattern,
        created_by=by.id,
        expires_at=datetime.now(UTC) + expires_in if expires_in else None,
    )
    session.add(token)
    session.flush()
    return token, text


def identify(session: Session, text: str) -> Principal:
    """Find who holds a token; raises `TokenInvalid`."""
    token = session.scalar(
        select(Token).where(
            Token.sha256 == _hashed(text),
            Token.revoked_at.is_(None),
            or_(Token.expires_at.is_(None), Token.expires_at > func.now()),
        )
    )
    if token is None:
        raise errors.TokenInvalid
    if token.used_at is None or token.used_at < datetime.now(UTC) - USED_EVERY:
        session.execute(update(Token).where(Token.id == token.id).values(used_at=func.now()))
    scopes = frozenset(Scope(scope) for scope in token.scopes)
    return Principal(token.name, scopes, token.namespace_pattern)


def known(session: Session, text: str) -> bool:
    """Whether a token of this text was ever minted, even if it was revoked since."""
    return session.scalar(select(Token.id).where(Token.sha256 == _hashed(text))) is not None


def revoke(session: Session, token_id: int, *, by: Principal) -> None:
    """End a token at once; raises `ThingNotFound` and `ScopeMissing`.

    Who is bound to a namespace pattern ends tokens bound to the same one.
    """
    token = session.get(Token, token_id, with_for_update=True)
    if token is None:
        raise errors.ThingNotFound("token", str(token_id))
    _check_bound_alike(by, token.namespace_pattern)
    token.revoked_at = token.revoked_at or datetime.now(UTC)
    session.flush()


def tokens(session: Session, *, after: int | None, limit: int) -> Sequence[Token]:
    """Some tokens, oldest first, behind number `after`."""
    query = select(Token).order_by(Token.id).limit(limit)
    return session.scalars(query.where(Token.id > after) if after else query).all()


def _check_bound_alike(by: Principal, namespace_pattern: str | None) -> None:
    if by.namespace_pattern is not None and namespace_pattern != by.namespace_pattern:
        raise errors.ScopeMissing(Scope.ADMIN.value, namespace_pattern or "*")


def _hashed(text: str) -> str:
    # The text holds 256 random bits, so a plain hash cannot be turned back.
    return hashlib.sha256(text.encode()).hexdigest()

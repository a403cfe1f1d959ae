from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from service import errors
from service.registry import access
from service.registry.access import OWNER, anonymous
from service.schemas.operations import Scope


def test_a_token_is_known_by_its_text_and_kept_as_a_hash(session: Session) -> None:
    token, text = access.mint(session, "ci", [Scope.PUBLISH], by=OWNER)

    found = access.identify(session, text)

    assert (found.id, found.scopes) == ("ci", frozenset({Scope.PUBLISH}))
    assert text not in token.sha256


def test_a_revoked_and_an_expired_token_are_not_known(session: Session) -> None:
    token, revoked = access.mint(session, "a", [Scope.READ], by=OWNER)
    access.revoke(session, token.id, by=OWNER)
    _, expired = access.mint(session, "b", [Scope.READ], by=OWNER, expires_in=timedelta(seconds=-1))

    for text in (revoked, expired, "pb_made-up"):
        with pytest.raises(errors.TokenInvalid):
            access.identify(session, text)


def test_admin_implies_every_scope() -> None:
    admin = access.Principal("root", frozenset({Scope.ADMIN}))

    for scope in Scope:
        admin.require(scope, "vision")


def test_a_missing_scope_is_named() -> None:
    reader = access.Principal("r", frozenset({Scope.READ}))

    with pytest.raises(errors.ScopeMissing, match="move"):
        reader.require(Scope.MOVE)
    with pytest.raises(errors.TokenMissing, match="publish"):
        anonymous(may_read=True).require(Scope.PUBLISH)
    with pytest.raises(errors.TokenMissing, match="read"):
        anonymous(may_read=False).require(Scope.READ)


def test_a_namespace_pattern_binds_changes_and_not_reading() -> None:
    ci = access.Principal("ci", frozenset({Scope.READ, Scope.PUBLISH}), "vision-*")

    ci.require(Scope.PUBLISH, "Vision-a")
    ci.require(Scope.READ, "other")

    with pytest.raises(errors.ScopeMissing, match="other"):
        ci.require(Scope.PUBLISH, "other")


def test_a_bound_admin_makes_no_unbound_token(session: Session) -> None:
    bound = access.Principal("admin", frozenset({Scope.ADMIN}), "vision")

    with pytest.raises(errors.ScopeMissing):
        access.mint(session, "wider", [Scope.PUBLISH], by=bound)

    token, _ = access.mint(session, "same", [Scope.PUBLISH], by=bound, namespace_pattern="vision")
    assert token.namespace_pattern == "vision"


def test_a_bound_admin_ends_tokens_of_its_own_namespaces_alone(session: Session) -> None:
    bound = access.Principal("admin", frozenset({Scope.ADMIN}), "vision")
    own, _ = access.mint(session, "own", [Scope.READ], by=OWNER, namespace_pattern="vision")
    owners, text = access.mint(session, "owner", [Scope.ADMIN], by=OWNER)

    access.revoke(session, own.id, by=bound)
    with pytest.raises(errors.ScopeMissing):
        access.revoke(session, owners.id, by=bound)

    assert own.revoked_at is not None
    assert access.identify(session, text).id == "owner"


def test_a_token_may_be_named_anonymous_and_is_still_a_token(session: Session) -> None:
    _, text = access.mint(session, "anonymous", [Scope.READ], by=OWNER)

    found = access.identify(session, text)

    assert not found.is_anonymous
    with pytest.raises(errors.ScopeMissing):
        found.require(Scope.PUBLISH)

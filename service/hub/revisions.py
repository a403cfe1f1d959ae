"""Which recipe a revision is: an alias, a version, a recipe string, or a commit.

A commit is the first 40 hex digits of a recipe's digest; the base alone is a recipe too. A recipe
is recorded before its commit is told, so that every replica finds it again, after any restart.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import unquote

from fastapi import Depends
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.models import Model
from service.http.deps import Caller, Config, Parts
from service.hub import refusals
from service.names import Name, model_name
from service.registry import lines, recipes
from service.registry.access import Principal
from service.registry.recipes import Resolved
from service.schemas.operations import Scope

COMMIT_DIGITS: Final = 40
MAX_REVISION_BYTES: Final = 242
"""Clients keep a revision as the name of a file, with a suffix of 13 bytes while they write it."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_UNRESOLVED = (errors.NotFound, errors.Gone, errors.Invalid, errors.Conflict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A repository and a revision of it, as a request names them."""

    name: Name
    revision: str
    caller: Principal
    parts: Parts


@dataclass(frozen=True, slots=True)
class Pinned:
    """A recipe, and the commit that names it."""

    resolved: Resolved
    commit: str


async def _reader(caller: Caller) -> Principal:
    caller.require(Scope.READ)
    return caller


Reader = Annotated[Principal, Depends(_reader)]


async def repo_in_path(namespace: str, name: str) -> Name:
    """The repository that an address names."""
    text = f"{unquote(namespace)}/{unquote(name)}"
    try:
        return model_name(text)
    except errors.Invalid as error:
        raise refusals.repo_not_found(str(error)) from error


Repo = Annotated[Name, Depends(repo_in_path)]


async def _asked(name: Repo, caller: Reader, parts: Config, revision: str = "main") -> Asked:
    return Asked(name, unquote(revision), caller, parts)


Revision = Annotated[Asked, Depends(_asked)]


def model(session: Session, name: Name) -> Model:
    """The model of a repository."""
    try:
        return lines.find(session, Model, name)
    except _UNRESOLVED as error:
        raise refusals.repo_not_found(str(error)) from error


def pin(session: Session, asked: Asked) -> Pinned:
    """Find the recipe that a revision names, and record it.

    Raises `HubError`, and `BuildNotReady` where the caller may not make a new recipe.
    """
    found = model(session, asked.name)
    try:
        if _COMMIT.fullmatch(asked.revision):
            resolved = recipes.of_commit(session, found, asked.revision)
        else:
            reference = f"{found.full_name}@{asked.revision}"
            resolved = recipes.resolve(session, reference, require="same_architecture")
    except _UNRESOLVED as error:
        raise refusals.revision_not_found(str(error)) from error
    length = len(asked.revision.encode())
    if length <= MAX_REVISION_BYTES:
        return record(session, asked, resolved)
    with asked.parts.sessions.begin() as apart:  # what is refused below must not undo it
        commit = record(apart, asked, resolved).commit
    raise refusals.revision_not_found(
        f"the recipe has {length} bytes, and clients keep it as a file name of at most "
        f"{MAX_REVISION_BYTES}; ask for its commit instead: {commit}"
    )


def record(session: Session, asked: Asked, resolved: Resolved) -> Pinned:
    """Make sure that a recipe's commit finds it again; raises `BuildNotReady` as `pin`."""
    digest = resolved.canonical.digest
    if not recipes.is_known(session, digest):
        if asked.caller.is_anonymous and not asked.parts.anonymous_build and resolved.parts:
            raise errors.BuildNotReady(digest.removeprefix("sha256:"))
        recipes.save(session, resolved, by=asked.caller)
    return Pinned(resolved, commit_of(resolved))


def commit_of(resolved: Resolved) -> str:
    """The commit that names a recipe."""
    return resolved.canonical.digest.removeprefix("sha256:")[:COMMIT_DIGITS]


def pinning(asked: Asked) -> Callable[[Session], Resolved]:
    """A resolver of what was asked for."""
    return lambda session: pin(session, asked).resolved

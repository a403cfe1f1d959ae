"""Repositories: what a model is, which revisions it has, and which models there are."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from service.db.tables.models import Model, ModelVersion
from service.http.deps import Config, DbSession
from service.hub import files
from service.hub.files import Entry
from service.hub.revisions import Asked, Pinned, Reader, Repo, Revision, model, pin, record
from service.names import Reference
from service.registry import aliases, models, recipes
from service.schemas.operations import Scope

router = APIRouter(prefix="/api/models")

COMMITS_A_PAGE: Final = 50
TAGS_SHOWN: Final = 1000
_LICENSE: Final = "license:"


@router.get("")
def listed(
    request: Request,
    response: Response,
    session: DbSession,
    caller: Reader,
    search: str = "",
    author: str | None = None,
    labels: Annotated[list[str] | None, Query(alias="filter")] = None,
    limit: Annotated[int, Query(ge=1)] = 100,
    cursor: str | None = None,
) -> list[dict[str, Any]]:
    """List models by name, a page at a time."""
    _ = caller
    limit = min(limit, 200)
    wanted = [label for each in labels or [] for label in each.split(",") if label]
    licenses = [label for label in wanted if label.startswith(_LICENSE)]
    rows = models.listed(
        session,
        words=search,
        namespace=author,
        labels=[label for label in wanted if label not in licenses],
        licenses=[label.removeprefix(_LICENSE) for label in licenses],
        after=cursor,
        limit=limit + 1,
    )
    if len(rows) > limit:
        asked = [pair for pair in request.query_params.multi_items() if pair[0] != "cursor"]
        _link(response, request, [*asked, ("cursor", rows[limit - 1].key)])
    return [_summary(row) for row in rows[:limit]]


@router.get("/{namespace}/{name}")
@router.get("/{namespace}/{name}/revision/{revision}")
def info(asked: Revision, session: DbSession, *, blobs: bool = False) -> dict[str, Any]:
    """Describe a model at a revision."""
    pinned = pin(session, asked)
    entries = files.listed(session, pinned.resolved)
    return _info(pinned, [_sibling(entry, blobs=blobs) for entry in entries])


@router.get("/{namespace}/{name}/refs")
def refs(name: Repo, caller: Reader, parts: Config, session: DbSession) -> dict[str, Any]:
    """List aliases as branches and versions as tags; a recipe is a revision that no list holds."""
    line = model(session, name)
    asked = Asked(name, "main", caller, parts)
    versions = models.versions(session, name, before=None, limit=TAGS_SHOWN)
    commits = {version.number: _commit(session, asked, version) for version in versions}
    branches = [
        _ref(f"refs/heads/{alias.name}", commits[alias.version_number])
        for alias in aliases.listed(session, line)
        if alias.version_number in commits
    ]
    tags = [_ref(f"refs/tags/v{number}", commit) for number, commit in commits.items()]
    return {"branches": branches, "converts": [], "tags": tags, "pullRequests": []}


@router.get("/{namespace}/{name}/commits/{revision}")
def commits(
    asked: Revision,
    session: DbSession,
    request: Request,
    response: Response,
    before: int | None = None,
) -> list[dict[str, Any]]:
    """List what led to a revision: the recipe itself, and the versions up to its base."""
    pinned = pin(session, asked)
    base = pinned.resolved.base
    first = [_recipe_entry(pinned)] if pinned.resolved.parts and before is None else []
    rows = models.versions(
        session, asked.name, before=before or base.number + 1, limit=COMMITS_A_PAGE + 1
    )
    shown = rows[:COMMITS_A_PAGE]
    if len(rows) > len(shown):
        _link(response, request, [("before", str(shown[-1].number))])
    return first + [_version_entry(version, _commit(session, asked, version)) for version in shown]


@router.get("/{namespace}/{name}/auth-check")
def auth_check(name: Repo, caller: Reader, session: DbSession) -> dict[str, Any]:
    """Say whether the caller may read a model."""
    _ = caller
    model(session, name)
    return {}


@router.get("/{namespace}/{name}/auth-check/write")
def auth_check_write(name: Repo, caller: Reader, session: DbSession) -> dict[str, Any]:
    """Say whether the caller may publish to a model."""
    model(session, name)
    caller.require(Scope.PUBLISH, name.namespace)
    return {}


def _commit(session: Session, asked: Asked, version: ModelVersion) -> str:
    reference = str(Reference(asked.name, str(version.number)))
    resolved = recipes.resolve(session, reference, require="same_architecture")
    return record(session, asked, resolved).commit


def _ref(ref: str, commit: str) -> dict[str, str]:
    return {"name": ref.split("/", 2)[2], "ref": ref, "targetCommit": commit}


def _recipe_entry(pinned: Pinned) -> dict[str, Any]:
    base = pinned.resolved.base
    title = recipes.pinned(pinned.resolved)
    return _entry(pinned.commit, title, base.created_by, base)


def _version_entry(version: ModelVersion, commit: str) -> dict[str, Any]:
    return _entry(commit, f"version {version.number}", version.created_by, version)


def _entry(commit: str, title: str, author: str, version: ModelVersion) -> dict[str, Any]:
    return {
        "id": commit,
        "title": title,
        "message": "",
        "authors": [{"user": author}],
        "date": _moment(version.created_at),
    }


def _link(response: Response, request: Request, query: Sequence[tuple[str, str]]) -> None:
    """Name the next page, absolutely: clients follow the address as it stands."""
    following = request.url.replace(query=urlencode(query))
    response.headers["Link"] = f'<{following}>; rel="next"'


def _sibling(entry: Entry, *, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": entry.path}
    found: dict[str, Any] = {"rfilename": entry.path, "size": entry.size_bytes}
    if entry.sha256 is not None:
        found |= {"blobId": entry.git_oid, "lfs": entry.lfs("sha256")}
    return found


def _info(pinned: Pinned, siblings: list[dict[str, Any]]) -> dict[str, Any]:
    resolved = pinned.resolved
    line = resolved.base.model
    licenses = recipes.licenses(resolved)
    return {
        **_summary(line),
        "sha": pinned.commit,
        "siblings": siblings,
        "cardData": {"license": licenses[0]} if licenses else {},
        "tags": [*_tags(line), f"recipe:{recipes.pinned(resolved).partition('@')[2]}"],
        "patchbay": {
            "recipe": resolved.canonical.digest,
            "reference": recipes.pinned(resolved),
            "licenses": licenses,
            "warnings": recipes.warnings(resolved),
        },
    }


def _summary(line: Model) -> dict[str, Any]:
    return {
        "_id": str(line.id),
        "id": line.full_name,
        "modelId": line.full_name,
        "author": line.namespace,
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": _tags(line),
        "createdAt": _moment(line.created_at),
        "lastModified": _moment(line.updated_at),
    }


def _tags(line: Model) -> list[str]:
    return [*line.labels, *([_LICENSE + line.license.lower()] if line.license else [])]


def _moment(at: datetime) -> str:
    """In the one form that clients read."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

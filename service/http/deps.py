"""What path functions are handed: the parts of the process, a transaction, the caller, names.

What only parses text is `async def`: FastAPI runs a plain `def` dependency in a thread of its own,
which costs more than the parsing. What talks to the database is a plain `def`.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlsplit

import anyio
from fastapi import Depends, Path, Request
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session, sessionmaker

from service import errors, names
from service.blobs.cache import Source
from service.blobs.store import BlobStore
from service.http.waiting import Listener
from service.registry import access, operations, plans
from service.registry.access import Principal
from service.schemas.operations import Scope

TOKEN_COOKIE: Final = "patchbay_token"  # noqa: S105  # the cookie's name
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Parts:
    """What `app.py` has put together for the requests."""

    sessions: sessionmaker[Session]
    store: BlobStore
    source: Source
    """Where downloads read blobs from: the store, or a cache before it."""
    listener: Listener
    transfers: anyio.CapacityLimiter
    """How many threads may move bytes at once; apart from the threads that answer requests."""
    limits: operations.Limits
    plans: plans.Kept
    """What this process planned lately."""
    anonymous_read: bool
    anonymous_build: bool
    upload_limit_bytes: int


async def _parts(request: Request) -> Parts:
    found: Parts = request.app.state.parts
    return found


async def _store(request: Request) -> BlobStore:
    return (await _parts(request)).store


async def _limits(request: Request) -> operations.Limits:
    return (await _parts(request)).limits


Config = Annotated[Parts, Depends(_parts)]
Store = Annotated[BlobStore, Depends(_store)]
Limits = Annotated[operations.Limits, Depends(_limits)]


def db_session(parts: Config) -> Iterator[Session]:
    """One transaction around the path function: commits if it returns, rolls back if it raises."""
    with parts.sessions.begin() as session:
        yield session


# scope="function": commit before the response leaves, and hold no connection while bytes stream.
DbSession = Annotated[Session, Depends(db_session, scope="function")]


# ── the caller ───────────────────────────────────────────────────────────────────────────────

_bearer = HTTPBearer(
    scheme_name="token", description="A token of `POST /v1/tokens`.", auto_error=False
)
_cookie = APIKeyCookie(
    name=TOKEN_COOKIE,
    scheme_name="cookie",
    description="The same token, as the pages keep it; changes need a matching `Origin`.",
    auto_error=False,
)


def caller(
    request: Request,
    parts: Config,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    cookie: Annotated[str | None, Depends(_cookie)],
) -> Principal:
    """Who is asking: by token, by cookie, or nobody; raises `TokenInvalid`."""
    if bearer is None and request.headers.get("authorization"):
        raise errors.TokenInvalid
    text = bearer.credentials if bearer else cookie if _of_our_pages(request) else None
    if not text:
        return access.anonymous(may_read=parts.anonymous_read)
    # A transaction of its own: an upload or a long poll must not hold it while it lasts.
    with parts.sessions.begin() as session:
        return access.identify(session, text)


def _of_our_pages(request: Request) -> bool:
    """Whether a cookie may be trusted: another site's page can make a browser send it."""
    if request.method in _SAFE_METHODS:
        return True
    origin = request.headers.get("origin", "")
    return urlsplit(origin).netloc == request.headers.get("host", "")


Caller = Annotated[Principal, Depends(caller)]


def requires(scope: Scope) -> Callable[[Principal], Awaitable[Principal]]:
    """A dependency: the caller, if they have `scope`; raises `TokenMissing` and `ScopeMissing`.

    Where a change is bound to a namespace, the path function asks again, with the namespace.
    """

    async def check(asking: Caller) -> Principal:
        asking.require(scope)
        return asking

    return check


Reader = Annotated[Principal, Depends(requires(Scope.READ))]
Publisher = Annotated[Principal, Depends(requires(Scope.PUBLISH))]
Mover = Annotated[Principal, Depends(requires(Scope.MOVE))]
Admin = Annotated[Principal, Depends(requires(Scope.ADMIN))]


# ── names in paths ───────────────────────────────────────────────────────────────────────────

_Namespace = Annotated[str, Path(description="Namespace.", examples=["vision"])]
_Digest = Annotated[str, Path(examples=["sha256:" + "0" * 64])]


async def model_in_path(
    namespace: _Namespace, name: Annotated[str, Path(examples=["resnet50"])]
) -> names.Name:
    """The model that an address names; raises `BadName` and `ReservedNamespace`."""
    return names.model_name(f"{namespace}/{name}")


async def patch_in_path(
    namespace: _Namespace, name: Annotated[str, Path(examples=["fog"])]
) -> names.Name:
    """The patch that an address names; raises `BadName` and `ReservedNamespace`."""
    return names.patch_name(f"{namespace}/{name}")


async def _channel(
    namespace: _Namespace, name: Annotated[str, Path(examples=["stable"])]
) -> names.Name:
    return names.channel_name(f"{namespace}/{name}")


async def _digest(digest: _Digest) -> names.Digest:
    return names.parse_digest(digest)


ModelPath = Annotated[names.Name, Depends(model_in_path)]
PatchPath = Annotated[names.Name, Depends(patch_in_path)]
ChannelPath = Annotated[names.Name, Depends(_channel)]
DigestPath = Annotated[names.Digest, Depends(_digest)]

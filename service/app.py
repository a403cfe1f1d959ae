"""Puts the web process together: settings → engine, blobs, listener → FastAPI."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from importlib.metadata import version
from typing import Any, Final

import anyio
from fastapi import FastAPI
from sqlalchemy.orm import Session, sessionmaker

from service import errors
from service.api import health, problem_pages, routes
from service.blobs.cache import MEMORY_BYTES, Cache, Source
from service.blobs.folder import FolderStore
from service.blobs.opening import Presigning, open_store
from service.blobs.shelves import FolderShelf, MemoryShelf
from service.blobs.store import BlobStore
from service.db import engine as db
from service.http import middleware, openapi, problems
from service.http.deps import Parts
from service.http.waiting import Listener
from service.hub import mount
from service.names import Digest
from service.registry import audits, operations, plans
from service.settings import MIB, Settings
from service.web import pages

JSON_LIMIT_BYTES: Final = MIB
STREAMED: Final = ("/v1/blobs/", "/v1/uploads/")
TRANSFER_THREADS: Final = 16
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class Application(FastAPI):
    """FastAPI with our own OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = openapi.document(self)
        return self.openapi_schema


def create_app(settings: Settings) -> FastAPI:
    """The web application; opens what it needs when it starts, and closes it when it ends.

    Raises `PartFailed` where the settings name no database or no blob store.
    """
    if settings.database_url is None or settings.blob_url is None:
        raise errors.PartFailed("the web service", "PATCHBAY_DATABASE_URL or _BLOB_URL is not set")

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _parts(settings) as parts:
            app.state.parts = parts
            yield

    app = Application(
        title="Patchbay",
        summary="A registry for model patches.",
        description=routes.DESCRIPTION,
        version=version("patchbay"),
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_tags=routes.TAGS,
        generate_unique_id_function=openapi.operation_id,
        docs_url=None,  # both pages load their scripts from other hosts
        redoc_url=None,
        lifespan=lifespan,
    )
    app.include_router(health.router)
    app.include_router(routes.router)
    app.include_router(problem_pages.router)
    pages.install(app)
    mount.install(app)
    problems.install(app, page=pages.draw_problem)
    app.add_middleware(middleware.BodyLimit, limit_bytes=JSON_LIMIT_BYTES, streamed=STREAMED)
    app.add_middleware(middleware.Doorway)  # added last, so it stands outermost
    return app


@contextlib.asynccontextmanager
async def _parts(settings: Settings) -> AsyncIterator[Parts]:
    assert settings.database_url is not None  # noqa: S101  # `create_app` has checked both
    assert settings.blob_url is not None  # noqa: S101
    engine = db.create(settings.database_url.get_secret_value(), application="patchbay web")
    sessions = db.sessions(engine)
    listener = Listener(db.plain_url(engine))
    listening = asyncio.create_task(listener.run(), name="listener")
    closing = contextlib.ExitStack()
    try:
        store = open_store(
            settings.blob_url,
            endpoint_url=settings.s3_endpoint_url,
            presigning=Presigning(settings.s3_public_url) if settings.s3_presign else None,
            reserve_bytes=settings.disk_reserve_bytes,
        )
        source: Source = store
        if not isinstance(store, FolderStore):
            source = closing.enter_context(contextlib.closing(_cache(store, settings, sessions)))
        yield Parts(
            sessions=sessions,
            store=store,
            source=source,
            listener=listener,
            transfers=anyio.CapacityLimiter(TRANSFER_THREADS),
            limits=operations.Limits(
                queued=settings.queue_limit,
                stalled_after=timedelta(seconds=settings.stalled_after_s),
            ),
            plans=plans.Kept(),
            anonymous_read=_anonymous_read(settings),
            anonymous_build=settings.anonymous_build,
            upload_limit_bytes=settings.upload_limit_bytes,
        )
    finally:
        closing.close()
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
        engine.dispose()


def _cache(store: BlobStore, settings: Settings, sessions: sessionmaker[Session]) -> Cache:
    """What keeps hot blobs near; raises `PartFailed` where its folder cannot be used."""
    large = None
    if settings.cache_bytes:
        folder = settings.cache_dir or settings.home / "cache"
        try:
            large = FolderShelf(
                folder, settings.cache_bytes, reserve_bytes=settings.disk_reserve_bytes
            )
        except (errors.Unavailable, OSError) as error:
            reason = f"{folder}: {error}; name another with PATCHBAY_CACHE_DIR"
            raise errors.PartFailed("the cache of blobs", reason) from error

    def damaged(digest: Digest) -> None:
        with sessions.begin() as session:
            audits.suspect(session, digest)

    return Cache(store, MemoryShelf(MEMORY_BYTES), large, damaged)


def _anonymous_read(settings: Settings) -> bool:
    if settings.anonymous_read is None:
        return settings.host in _LOOPBACK
    return settings.anonymous_read

"""The whole web application on real parts, driven in process."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from service.app import create_app
from service.registry import access
from service.registry.access import OWNER
from service.schemas.operations import Scope
from service.settings import Settings
from tests.webserver import Served, serving


@pytest.fixture
def settings(own_database_url: str, tmp_path: Path) -> Settings:
    return Settings(
        database_url=SecretStr(own_database_url),
        blob_url=str(tmp_path / "blobs"),
        disk_reserve_bytes=0,
        upload_limit_bytes=4 * 2**20,
    )


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """A client without a token."""
    with TestClient(app) as opened:
        yield opened


@pytest.fixture
def bearer(own_sessions: sessionmaker[Session]) -> Callable[..., dict[str, str]]:
    """Mint a token of the given scopes; answers the headers that show it."""

    def minted(*scopes: Scope) -> dict[str, str]:
        with own_sessions.begin() as session:
            _, text = access.mint(session, "test", scopes, by=OWNER)
        return {"Authorization": f"Bearer {text}"}

    return minted


@pytest.fixture
def served(app: FastAPI) -> Iterator[Served]:
    """The application behind a real server."""
    with serving(app) as found:
        yield found

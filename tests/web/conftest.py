"""The whole web application on a small catalogue, whose patch was really extracted."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import pytest
import torch
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from service.app import create_app
from service.blobs.folder import FolderStore
from service.db.tables.models import ModelVersion
from service.db.tables.patches import Patch
from service.names import Digest, channel_name, digest_of, patch_name
from service.registry import access, blobs, channels, lines, patches
from service.registry.access import OWNER
from service.schemas.operations import Scope
from service.schemas.recipes import RecipePart
from service.settings import Settings
from service.tensors.selection import First
from tests.factories import publish_model, signature
from tests.pairs import Bench, Extracted, Three, weights
from tests.web import findings

Sessions = sessionmaker[Session]
CARD = "Trained on **snow**.\n\n<script>alert(1)</script>"


@pytest.fixture
def settings(own_database_url: str, tmp_path: Path) -> Settings:
    return Settings(
        database_url=SecretStr(own_database_url),
        blob_url=str(tmp_path / "blobs"),
        disk_reserve_bytes=0,
    )


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """A browser that is not signed in."""
    with TestClient(app, headers={"Accept": "text/html"}, follow_redirects=False) as opened:
        yield opened


@pytest.fixture
def closed(settings: Settings) -> Iterator[TestClient]:
    """A browser before a service that nobody may read without a token."""
    app = create_app(settings.model_copy(update={"anonymous_read": False}))
    with TestClient(app, headers={"Accept": "text/html"}, follow_redirects=False) as opened:
        yield opened


@pytest.fixture
def token(own_sessions: Sessions) -> Callable[..., str]:
    """Mint a token of the given scopes; answers its text."""

    def minted(*scopes: Scope) -> str:
        with own_sessions.begin() as session:
            return access.mint(session, "alice", scopes, by=OWNER)[1]

    return minted


@pytest.fixture(scope="session")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Extracted:
    """A patch and its profile, of the first kernel of three."""
    torch.set_num_threads(1)
    origin = weights(1)
    three = Three(weights(2, start=origin), weights(3, start=origin), origin)
    return Bench(tmp_path_factory.mktemp("extracted")).extract(three.trio, layers=First(1))


@dataclass(frozen=True)
class Catalogue:
    """Where things are committed, and how more of them are made."""

    sessions: Sessions
    store: FolderStore

    def model(self, name: str, *, content: str, labels: tuple[str, ...] = ()) -> ModelVersion:
        """Publish a model version."""
        with self.sessions.begin() as session:
            version = publish_model(session, name, content=content)
            lines.edit(session, version.model, card=CARD, license="MIT", labels=labels)
            return version

    def patch(
        self,
        name: str,
        extracted: Extracted,
        *,
        profile: bytes | None = None,
        **lineage: ModelVersion,
    ) -> None:
        """Publish a patch version with the summary of an extraction."""
        given = replace(
            signature(name, clean=lineage["clean"].weights_digest if "clean" in lineage else None),
            summary=extracted.result.summary,
            size_bytes=len(extracted.content),
        )
        digest = None if profile is None else self.put(profile)
        with self.sessions.begin() as session:
            lines.describe(
                session, Patch, patch_name(name), card=CARD, license="MIT", labels=["fog"], by=OWNER
            )
            blobs.record(session, given.digest, given.size_bytes)
            if profile is not None and digest is not None:
                blobs.record(session, digest, len(profile))
            patches.publish(
                session,
                patch_name(name),
                given,
                profile=digest,
                operation=None,
                by="alice",
                lineage=lineage,
            )

    def put(self, content: bytes) -> Digest:
        """Store a blob; its row is the caller's to write."""
        digest = digest_of(content)
        with self.store.writer(digest, len(content)) as writer:
            writer.write(content)
            writer.commit()
        return digest


@pytest.fixture
def empty(own_sessions: Sessions, store: FolderStore) -> Catalogue:
    """Nothing published yet."""
    return Catalogue(own_sessions, store)


@pytest.fixture
def catalogue(empty: Catalogue, extracted: Extracted) -> Catalogue:
    """Three models, patch `vision/fog` from them, and channel `vision/stable` after three moves."""
    origin = empty.model("vision/start", content="origin")
    clean = empty.model("vision/net", content="clean", labels=("snow", "base"))
    robust = empty.model("vision/net-fog", content="robust")
    profile = extracted_profile(extracted)
    empty.patch("vision/fog", extracted, profile=profile, clean=clean, robust=robust, origin=origin)
    stable, fog = channel_name("vision/stable"), patch_name("vision/fog")
    with empty.sessions.begin() as session:
        channels.point(
            session, stable, "vision/net@1", require="same_base", seen="nothing", by=OWNER
        )
        part = RecipePart(patch="vision/fog@1", scale=Decimal("0.8"))
        channels.add(session, stable, part, seen=1, by=OWNER)
        channels.rescale(session, stable, fog, Decimal("0.5"), seen=2, by=OWNER)
    return empty


@pytest.fixture
def found(catalogue: Catalogue, extracted: Extracted) -> Catalogue:
    """The catalogue with two patches more, what was found of all three, and a build of two."""
    clean = catalogue.model("vision/net", content="clean")
    for name in ("vision/haze", "vision/snow"):
        catalogue.patch(name, extracted, clean=clean)
    with catalogue.sessions.begin() as session:
        versions = [
            patches.resolve(session, patch_name(f"vision/{name}"), 1)
            for name in ("fog", "haze", "snow")
        ]
        findings.measure(session, versions[0], clean)
        findings.index(session, versions)
        for chosen in (versions, versions[:2]):
            findings.compare(session, chosen)
        findings.build(session)
    return catalogue


def extracted_profile(extracted: Extracted) -> bytes:
    """The bytes of an extraction's profile."""
    return json.dumps(extracted.profile).encode()

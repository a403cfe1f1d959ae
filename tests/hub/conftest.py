"""One application on real parts with a model, a patch and a built recipe, driven in process."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from safetensors.numpy import save
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from service import queue
from service.app import create_app
from service.blobs.folder import FolderStore
from service.db import engine as engines
from service.layout.header import parse
from service.layout.overlay import overlay_header
from service.names import Digest, digest_of
from service.registry import access, builds, digests, models, operations, recipes
from service.registry.access import OWNER
from service.registry.builds import Overlay
from service.schemas.operations import Scope
from service.settings import Settings
from tests import databases, factories
from tests.hub.shelf import FILE, RECIPE, Shelf


@pytest.fixture(scope="module")
def database_of_the_module(postgres_url: str, migrated_template: str) -> Iterator[str]:
    with databases.copied(postgres_url, migrated_template) as url:
        yield url


@pytest.fixture(scope="module")
def shelf(database_of_the_module: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    settings = Settings(
        database_url=SecretStr(database_of_the_module),
        blob_url=str(tmp_path_factory.mktemp("hub") / "blobs"),
        disk_reserve_bytes=0,
    )
    clean = {"conv.weight": np.ones((4, 3, 3, 3), "f4"), "fc.weight": np.ones((10, 4), "f4")}
    patched = clean | {"conv.weight": np.full((4, 3, 3, 3), 1.5, "f4")}
    engine = engines.create(database_of_the_module, application="tests")
    sessions = engines.sessions(engine)
    with sessions.begin() as session:
        _, token = access.mint(session, "owner", list(Scope), by=OWNER)
    with TestClient(create_app(settings)) as client:
        made = Shelf(settings, sessions, client, save(clean), save(patched), "", token)
        files = {FILE: made.clean, "config.json": b'{"a": 1}', "sub/vocab.txt": b"a\nb\n"}
        made.publish("vision/net", files, license="MIT", labels=["tiny"])
        with sessions.begin() as session:
            digest = _build(session, Path(str(settings.blob_url)), made.patched)
        yield replace(made, commit=digest.removeprefix("sha256:")[:40])
    engine.dispose()


def _build(session: Session, blobs: Path, patched: bytes) -> Digest:
    """Record a build as a worker does: overlay, then the digest of the whole file."""
    factories.publish_patch(session)
    operations.worker_seen(session, "w1", [queue.GPU], "cpu")
    resolved = recipes.resolve(session, f"vision/net@{RECIPE}", require="same_architecture")
    builds.request(session, resolved, by=OWNER, limits=operations.Limits())
    header = overlay_header(
        models.headers(session, resolved.base.weight_files)[FILE], ["conv.weight"]
    )
    tensor = parse(patched, len(patched)).entry("conv.weight")
    content = header.raw + patched[tensor.start : tensor.end]
    with FolderStore(blobs, reserve_bytes=0).writer(digest_of(content), len(content)) as writer:
        writer.write(content)
        writer.commit()
    made = Overlay(FILE, digest_of(content), len(content), header.raw)
    digest = resolved.canonical.digest
    builds.record(session, digest, [made])
    hashing = digests.request(session, builds.ready(session, digest))
    assert hashing is not None
    digests.record(session, hashing, {FILE: digest_of(patched)})
    operations.worker_gone(session, "w1")
    return digest


@pytest.fixture
def a_worker(shelf: Shelf) -> Iterator[None]:
    """A worker that gave a sign of life, and carries out nothing."""
    with shelf.sessions.begin() as session:
        operations.worker_seen(session, "w2", list(queue.ALL), "cpu")
    yield
    with shelf.sessions.begin() as session:
        operations.worker_gone(session, "w2")


@pytest.fixture(scope="module")
def get(shelf: Shelf) -> Callable[[str], Any]:
    """GET an address that must answer 200 with JSON."""

    def got(address: str) -> Any:
        answer = shelf.client.get(address)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return got

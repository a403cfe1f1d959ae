"""The three kinds of operations, from request to record, through a real worker with torch."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from safetensors.torch import load, save
from sqlalchemy.orm import Session

from service.blobs.folder import FolderStore
from service.db.tables.models import Model
from service.db.tables.operations import Operation
from service.db.tables.patches import Patch
from service.layout.header import read_header
from service.names import Digest, digest_of, model_name, patch_name
from service.registry import blobs, builds, extractions, lines, models, operations, patches, recipes
from service.registry.access import OWNER
from service.schemas.patches import RequestExtraction
from tests import factories
from tests.pairs import Tensors, reader, weights
from tests.worker.floor import PRODUCTION, Floor

pytestmark = pytest.mark.xdist_group("workers")

LIMITS = operations.Limits()
FOG = patch_name("vision/fog")
COPY = patch_name("vision/copy")


@dataclass(frozen=True)
class Shop:
    """A floor whose worker carries out what the registry asks for."""

    floor: Floor

    @property
    def store(self) -> FolderStore:
        return FolderStore(self.floor.blobs, reserve_bytes=0)

    def publish(self, name: str, tensors: Tensors) -> None:
        content = save(tensors)
        digest = digest_of(content)
        with self.store.writer(digest, len(content)) as writer:
            writer.write(content)
            writer.commit()
        header = read_header(reader(content), len(content))
        with self.floor.sessions.begin() as session:
            blobs.record(session, digest, len(content))
            made = model_name(name)
            lines.describe(session, Model, made, card="", license=None, labels=[], by=OWNER)
            models.publish(session, made, {"model.safetensors": digest}, {digest: header}, by=OWNER)

    def blob(self, digest: str) -> bytes:
        return b"".join(self.store.stream(Digest(digest)))

    def result(self, operation: Operation) -> dict[str, Any]:
        ended = self.floor.until_state(operation.id, "succeeded")
        assert ended.result is not None
        return ended.result

    def extract(self, *, dry_run: bool) -> dict[str, Any]:
        body = RequestExtraction(clean="vision/clean", robust="vision/robust", dry_run=dry_run)
        with self.floor.sessions.begin() as session:
            operation = extractions.request(session, FOG, body, by=OWNER, limits=LIMITS)
        return self.result(operation)

    def build(self, **scales: str) -> dict[str, Any]:
        with self.floor.sessions.begin() as session:
            body = factories.recipe("vision/clean", **scales)
            resolved = recipes.resolve(session, body, require="same_base")
            _, operation = builds.request(session, resolved, by=OWNER, limits=LIMITS)
        assert operation is not None
        return self.result(operation)

    def publish_copy(self, digest: str) -> dict[str, Any]:
        with self.floor.sessions.begin() as session:
            operation = patches.request_publication(
                session, COPY, Digest(digest), None, by=OWNER, limits=LIMITS
            )
        assert isinstance(operation, Operation)
        return self.result(operation)


@pytest.fixture
def shop(floor: Floor) -> Shop:
    with floor.sessions.begin() as session:
        for name in (FOG, COPY):
            lines.describe(session, Patch, name, card="", license=None, labels=[], by=OWNER)
    floor.start("worker", program=PRODUCTION)
    return Shop(floor)


def overlays(session: Session, build_id: str) -> dict[str, str]:
    return {file.path: file.overlay_digest for file in builds.find(session, build_id).files}


def test_a_pair_becomes_a_patch_then_a_build_and_its_file_is_published_again(shop: Shop) -> None:
    origin = weights(1)
    clean = weights(2, start=origin)
    shop.publish("vision/clean", clean)
    shop.publish("vision/robust", weights(3, start=origin))

    planned = shop.extract(dry_run=True)
    extracted = shop.extract(dry_run=False)
    built = shop.build(fog="0.5")
    copied = shop.publish_copy(extracted["digest"])

    assert planned["summary"]["estimated_bytes"]
    with shop.floor.sessions.begin() as session:
        version = patches.resolve(session, FOG, 1)
        assert version.clean is not None
        assert version.clean.reference == "vision/clean@1"
        assert json.loads(shop.blob(str(version.profile_digest)))
        copy = patches.resolve(session, COPY, 1)
        assert copy.tensors == version.tensors
        assert copy.clean == version.clean
        (overlay,) = overlays(session, built["id"]).values()
    assert (copied["digest"], copied["version"]) == (extracted["digest"], 1)
    touched = load(shop.blob(overlay))
    assert {name for _, name, _, _ in version.tensors} == set(touched)
    assert all(tensor.shape == clean[name].shape for name, tensor in touched.items())

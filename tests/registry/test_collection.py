from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from service import errors, queue
from service.db.declarative import Table
from service.db.tables.blobs import Blob
from service.db.tables.builds import Build
from service.db.tables.models import ModelFile
from service.db.tables.patches import PatchVersion
from service.layout.overlay import overlay_header
from service.names import Digest, channel_name, model_name, patch_name
from service.registry import (
    blobs,
    builds,
    channels,
    collection,
    models,
    operations,
    patches,
    recipes,
    retirement,
)
from service.registry.access import OWNER
from service.registry.builds import Overlay
from service.registry.operations import Limits
from tests.factories import digest, publish_model, publish_patch, recipe

LIMITS = Limits()
LATER = datetime.now(UTC) + timedelta(days=1)


def _left(session: Session, *digests: str) -> list[bool]:
    return [blobs.known(session, Digest(each)) is not None for each in digests]


def _litter(session: Session, text: str) -> Digest:
    blobs.record(session, digest(text), 10)
    return digest(text)


def _built(session: Session, scale: str) -> Build:
    """A ready build, used a while ago; the smaller its scale, the longer."""
    wanted = recipes.resolve(session, recipe(fog=scale), require="same_architecture")
    builds.request(session, wanted, by=OWNER, limits=LIMITS)
    base = models.headers(session, wanted.base.weight_files)["model.safetensors"]
    header = overlay_header(base, ["conv.weight"])
    overlay = Overlay("model.safetensors", digest(scale), header.file_size, header.raw)
    builds.record(session, wanted.canonical.digest, [overlay])
    build = builds.ready(session, wanted.canonical.digest)
    build.used_at = datetime.now(UTC) - timedelta(hours=10 - float(scale))
    session.flush()
    return build


@pytest.fixture
def published(session: Session) -> None:
    publish_patch(session, clean=publish_model(session))
    operations.worker_seen(session, "w1", list(queue.ALL), "cpu")


def test_every_column_that_names_a_blob_is_known_here() -> None:
    named = {
        (table.name, column.name)
        for table in Table.metadata.tables.values()
        for column in table.columns
        for key in column.foreign_keys
        if key.target_fullname == "blobs.digest"
    }

    assert named == {
        (ModelFile.__tablename__, "digest"),
        (PatchVersion.__tablename__, "digest"),
        (PatchVersion.__tablename__, "profile_digest"),
    }


@pytest.mark.usefixtures("published")
def test_what_a_version_a_build_or_an_operation_needs_stays(session: Session) -> None:
    build = _built(session, "1")
    asked = _litter(session, "asked for")
    patches.request_publication(
        session, patch_name("vision/fog"), asked, None, by=OWNER, limits=LIMITS
    )
    unneeded = _litter(session, "unneeded")

    marked = collection.mark(session, LATER)

    assert marked == [unneeded]
    assert _left(session, asked, digest("clean"), build.files[0].overlay_digest) == [True] * 3


def test_what_was_just_stored_stays(session: Session) -> None:
    fresh = _litter(session, "fresh")

    assert collection.mark(session, datetime.now(UTC) - timedelta(hours=1)) == []
    assert _left(session, fresh) == [True]


@pytest.mark.usefixtures("published")
def test_a_deleted_version_needs_nothing_and_keeps_its_row(session: Session) -> None:
    retirement.delete_patch_version(session, patches.resolve(session, patch_name("vision/fog"), 1))

    [marked] = collection.mark(session, LATER)
    assert collection.hold(session, marked)
    collection.removed(session, marked)

    assert marked == digest("vision/fog")
    assert session.get_one(Blob, marked).removed_at is not None
    assert collection.to_remove(session) == []


def test_a_marked_blob_is_absent_until_it_is_stored_anew(session: Session) -> None:
    blob = _litter(session, "blob")
    collection.mark(session, LATER)

    with pytest.raises(errors.BlobNotFound):
        blobs.sizes(session, [blob])
    assert collection.to_remove(session) == [(blob, 10)]

    assert not blobs.record(session, blob, 10)
    assert blobs.sizes(session, [blob]) == {blob: 10}
    assert not collection.hold(session, blob)


def test_a_dry_run_counts_what_a_run_takes(session: Session) -> None:
    for text in ("one", "two"):
        _litter(session, text)

    found = collection.unneeded(session, LATER)

    assert (found.count, found.size_bytes) == (2, 20)
    assert set(found.examples) == set(collection.mark(session, LATER))


def test_what_nobody_recorded_is_adopted_once(session: Session) -> None:
    known, litter = _litter(session, "known"), digest("litter")

    assert collection.adopt(session, [(known, 10), (litter, 20)]) == 1
    assert collection.adopt(session, [(known, 10), (litter, 20)]) == 0
    assert _left(session, litter) == [True]


def test_a_blob_that_is_being_referred_to_is_not_taken(
    own_sessions: sessionmaker[Session],
) -> None:
    with own_sessions.begin() as session:
        blob = _litter(session, "blob")

    with own_sessions.begin() as publisher:
        blobs.sizes(publisher, [blob])
        with own_sessions.begin() as collector:
            assert collection.mark(collector, LATER) == []

    with own_sessions.begin() as collector:
        assert collection.mark(collector, LATER) == [blob]


# ── expiry ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("published")
def test_overlays_beyond_the_limit_expire_longest_unused_first(session: Session) -> None:
    old, newer, newest = (_built(session, scale) for scale in ("1", "2", "3"))
    size = newest.files[0].overlay_size_bytes

    expired = collection.expire(session, 2 * size)

    assert expired == [old.files[0].overlay_digest]
    assert [build.state for build in (old, newer, newest)] == ["expired", "ready", "ready"]
    assert collection.expire(session, 2 * size) == []
    assert collection.mark(session, LATER, only=expired) == expired


@pytest.mark.usefixtures("published")
def test_what_a_channel_points_at_does_not_expire(session: Session) -> None:
    followed, other = (_built(session, scale) for scale in ("1", "2"))
    channels.point(
        session,
        channel_name("vision/stable"),
        recipe(fog="1"),
        require="same_architecture",
        by=OWNER,
        seen="nothing",
    )

    collection.expire(session, 0)

    assert [followed.state, other.state] == ["ready", "expired"]


# ── damage ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def damage(session: Session) -> Callable[[str], None]:
    def mark(digest: str) -> None:
        session.execute(update(Blob).where(Blob.digest == digest).values(damaged_at=LATER))

    return mark


@pytest.mark.usefixtures("published")
def test_nothing_is_built_from_a_damaged_base(
    session: Session, damage: Callable[[str], None]
) -> None:
    wanted = recipes.resolve(session, recipe(fog="1"), require="same_architecture")
    recipes.save(session, wanted, by=OWNER)
    damage(models.version(session, model_name("vision/net"), 1).files[0].digest)

    with pytest.raises(errors.DamagedBlob, match="upload it again"):
        builds.inputs(session, [wanted.canonical.digest])

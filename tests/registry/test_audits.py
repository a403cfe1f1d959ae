"""A blob that was found damaged, and what was made from it."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from service import errors, queue
from service.db.tables.builds import EXPIRED, READY, Build
from service.db.tables.operations import Operation
from service.layout.overlay import overlay_header
from service.names import Digest
from service.registry import audits, blobs, builds, digests, models, operations, plans, recipes
from service.registry.access import OWNER
from service.registry.audits import Due
from service.registry.builds import Overlay
from service.registry.plans import Part
from service.registry.recipes import Resolved
from tests.factories import digest, publish_model, publish_patch, recipe

FILE = "model.safetensors"
BASE = digest("clean")


@pytest.fixture
def asked(session: Session) -> Resolved:
    """A recipe whose build is under way."""
    publish_patch(session, clean=publish_model(session))
    operations.worker_seen(session, "w1", list(queue.ALL), "cpu")
    resolved = recipes.resolve(session, recipe(fog="1"), require="same_base")
    builds.request(session, resolved, by=OWNER, limits=operations.Limits())
    return resolved


def _record(session: Session, asked: Resolved, overlay: str) -> Build:
    header = overlay_header(models.headers(session, asked.base.weight_files)[FILE], ["conv.weight"])
    made = Overlay(FILE, digest(overlay), header.file_size, header.raw)
    builds.record(session, asked.canonical.digest, [made])
    return builds.ready(session, asked.canonical.digest)


def _found(session: Session, damaged: Digest) -> None:
    """An audit reads a blob that does not hash to its name."""
    audits.record(session, Due(damaged, 1, datetime.now(UTC) + timedelta(days=1)), sound=False)
    session.expire_all()


def test_an_overlay_that_is_damaged_is_made_again_to_the_same_bytes(
    session: Session, asked: Resolved
) -> None:
    build = _record(session, asked, "overlay")

    _found(session, digest("overlay"))
    _, operation = builds.request(session, asked, by=OWNER, limits=operations.Limits())

    assert operation is not None
    with pytest.raises(errors.BuildDiffers):
        _record(session, asked, "another")
    assert _record(session, asked, "overlay").state == READY
    assert build.files[0].overlay_digest == digest("overlay")
    assert blobs.known(session, digest("overlay")) is not None


def test_what_was_made_of_a_base_that_is_damaged_is_forgotten(
    session: Session, asked: Resolved
) -> None:
    kept = plans.Kept()
    build = _record(session, asked, "spoiled")
    first = plans.find(session, kept, asked.canonical.digest, Part.WEIGHTS, None)

    _found(session, BASE)

    assert (build.state, build.files) == (EXPIRED, [])
    blobs.record(session, BASE, first.plan.size_bytes)
    _record(session, asked, "right")
    again = plans.find(session, kept, asked.canonical.digest, Part.WEIGHTS, None)
    assert (first.overlay_digest, again.overlay_digest) == (digest("spoiled"), digest("right"))
    assert first.plan.etag != again.plan.etag


def test_what_was_hashed_since_it_was_made_stays(session: Session, asked: Resolved) -> None:
    build = _record(session, asked, "right")
    operation = digests.request(session, build)
    assert operation is not None
    digests.record(session, operation, {FILE: digest("whole")})

    _found(session, BASE)

    assert build.state == READY
    assert [file.overlay_digest for file in build.files] == [digest("right")]


def test_a_build_of_a_base_that_was_found_damaged_meanwhile_is_not_recorded(
    session: Session, asked: Resolved
) -> None:
    _found(session, BASE)

    with pytest.raises(errors.DamagedBlob, match=BASE):
        _record(session, asked, "spoiled")


def test_nothing_is_hashed_of_a_damaged_overlay(session: Session, asked: Resolved) -> None:
    operation = digests.request(session, _record(session, asked, "right"))
    assert operation is not None
    _found(session, digest("right"))

    with pytest.raises(errors.BuildNotReady):
        digests.inputs(session, operation.request)


def test_a_suspected_blob_is_read_back_by_one_audit(session: Session, asked: Resolved) -> None:
    _ = asked

    audits.suspect(session, BASE)
    audits.suspect(session, BASE)
    audits.suspect(session, digest("nobody has it"))

    [audit] = session.scalars(select(Operation).where(Operation.kind == audits.AUDIT))
    assert (audit.request["digests"], audit.queue) == ([BASE], queue.MAINTENANCE)
    operations.fail(session, audit, {"title": "a disk broke"})
    _found(session, BASE)
    audits.suspect(session, BASE)
    assert len(session.scalars(select(Operation).where(Operation.kind == audits.AUDIT)).all()) == 1

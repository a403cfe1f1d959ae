import pytest
from sqlalchemy.orm import Session

from service import errors, queue
from service.db.tables.builds import EXPIRED, Build
from service.db.tables.operations import Operation
from service.layout.overlay import overlay_header
from service.names import Digest
from service.registry import builds, digests, models, operations, plans, recipes
from service.registry.access import OWNER
from service.registry.builds import Overlay
from service.registry.plans import Part
from tests.factories import digest, publish_model, publish_patch, recipe

FILE = "model.safetensors"


@pytest.fixture
def build(session: Session) -> Build:
    """A build that became ready just now."""
    clean = publish_model(session)
    publish_patch(session, clean=clean)
    operations.worker_seen(session, "w1", [queue.GPU], "cpu")
    resolved = recipes.resolve(session, recipe(fog="1"), require="same_base")
    builds.request(session, resolved, by=OWNER, limits=operations.Limits())
    header = overlay_header(models.headers(session, clean.weight_files)[FILE], ["conv.weight"])
    made = Overlay(FILE, digest("overlay"), header.file_size, header.raw)
    builds.record(session, resolved.canonical.digest, [made])
    return builds.ready(session, resolved.canonical.digest)


def asked(session: Session, build: Build) -> Operation:
    operation = digests.request(session, build)
    assert operation is not None
    return operation


def known(session: Session, build: Build, kept: plans.Kept) -> Digest | None:
    recipe_digest = Digest(build.recipe_digest)
    return plans.find(session, kept, recipe_digest, Part.WEIGHTS, None).plan.sha256


def test_all_who_want_a_digest_share_one_operation_that_the_cpu_queue_carries_out(
    session: Session, build: Build
) -> None:
    first = asked(session, build)

    again = asked(session, build)

    assert again.id == first.id
    assert (first.queue, first.kind, first.created_by) == (queue.CPU, "digest", "patchbay")
    planned, sizes = digests.inputs(session, first.request)
    assert planned[FILE].size_bytes == build.recipe.base.size_bytes
    assert set(sizes) == set(planned[FILE].digests)


def test_a_recorded_digest_is_told_at_once_even_of_a_plan_that_was_kept(
    session: Session, build: Build
) -> None:
    kept = plans.Kept()
    before = known(session, build, kept)

    digests.record(session, asked(session, build), {FILE: digest("whole")})

    assert before is None
    assert known(session, build, kept) == digest("whole")
    assert digests.request(session, build) is None


def test_another_digest_of_the_same_file_is_refused(session: Session, build: Build) -> None:
    operation = asked(session, build)
    digests.record(session, operation, {FILE: digest("whole")})

    with pytest.raises(errors.BuildDiffers, match=digest("flipped")):
        digests.record(session, operation, {FILE: digest("flipped")})


def test_after_a_failure_the_next_who_asks_has_it_tried_again(
    session: Session, build: Build
) -> None:
    failed = asked(session, build)
    operations.fail(session, failed, {"title": "a disk broke"})

    again = asked(session, build)

    assert again.id != failed.id


def test_nothing_is_hashed_of_a_build_that_has_expired(session: Session, build: Build) -> None:
    build.state = EXPIRED
    session.flush()

    with pytest.raises(errors.BuildNotReady):
        digests.request(session, build)

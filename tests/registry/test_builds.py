from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from service import errors, queue
from service.db.tables.builds import READY
from service.db.tables.operations import Operation
from service.layout.overlay import overlay_header
from service.registry import builds, models, operations, plans, recipes
from service.registry.access import OWNER
from service.registry.builds import Overlay
from service.registry.operations import Limits
from service.registry.plans import Part
from tests.factories import digest, publish_model, publish_patch, recipe

LIMITS = Limits(queued=5, stalled_after=timedelta(seconds=30))


@pytest.fixture
def wanted(session: Session) -> recipes.Resolved:
    clean = publish_model(session)
    publish_patch(session, clean=clean)
    operations.worker_seen(session, "w1", [queue.GPU], "cpu")
    return recipes.resolve(session, recipe(fog="1"), require="same_base")


def request(session: Session, wanted: recipes.Resolved) -> Operation:
    _, operation = builds.request(session, wanted, by=OWNER, limits=LIMITS)
    assert operation is not None
    return operation


def record(session: Session, wanted: recipes.Resolved, made: Overlay) -> dict[str, Any]:
    request(session, wanted)
    return builds.record(session, wanted.canonical.digest, [made])


def overlay(session: Session, wanted: recipes.Resolved, content: str = "overlay") -> Overlay:
    base = models.headers(session, wanted.base.weight_files)["model.safetensors"]
    header = overlay_header(base, ["conv.weight"])
    return Overlay("model.safetensors", digest(content), header.file_size, header.raw)


def test_whoever_asks_again_shares_the_operation(
    session: Session, wanted: recipes.Resolved
) -> None:
    first = request(session, wanted)

    again = request(session, wanted)

    jobs = session.scalar(text("select count(*) from procrastinate_jobs"))
    assert (again.id, jobs) == (first.id, 1)


def test_a_recipe_without_patches_is_ready_at_once(session: Session) -> None:
    publish_model(session)
    plain = recipes.resolve(session, "vision/net", require="same_base")

    build, operation = builds.request(session, plain, by=OWNER, limits=LIMITS)

    assert (build.state, operation) == (READY, None)
    planned = plans.plan(session, build, Part.WEIGHTS, None)
    assert planned.plan.etag == digest("clean").removeprefix("sha256:")


def test_without_a_live_worker_a_build_is_refused(session: Session) -> None:
    clean = publish_model(session)
    publish_patch(session, clean=clean)
    wanted = recipes.resolve(session, recipe(fog="1"), require="same_base")

    with pytest.raises(errors.NoWorker, match="patchbay worker"):
        request(session, wanted)


def test_a_recorded_build_is_ready_and_planned(session: Session, wanted: recipes.Resolved) -> None:
    request(session, wanted)

    result = builds.record(session, wanted.canonical.digest, [overlay(session, wanted)])

    build = builds.ready(session, wanted.canonical.digest)
    patched = plans.plan(session, build, Part.WEIGHTS, None)
    undo = plans.plan(session, build, Part.UNDO, None)
    assert result["id"] == builds.hex_of(wanted.canonical.digest)
    assert patched.plan.size_bytes == wanted.base.size_bytes
    assert patched.plan.etag.startswith("s1-")
    assert undo.plan.size_bytes == overlay(session, wanted).size_bytes


def test_a_rebuild_that_differs_fails_loudly(session: Session, wanted: recipes.Resolved) -> None:
    record(session, wanted, overlay(session, wanted))
    builds.expire(session, builds.ready(session, wanted.canonical.digest))
    request(session, wanted)

    with pytest.raises(errors.BuildDiffers, match=digest("other")):
        builds.record(session, wanted.canonical.digest, [overlay(session, wanted, "other")])


def test_an_expired_build_is_made_again_to_the_same_bytes(
    session: Session, wanted: recipes.Resolved
) -> None:
    record(session, wanted, overlay(session, wanted))
    builds.expire(session, builds.ready(session, wanted.canonical.digest))
    with pytest.raises(errors.BuildNotReady):
        builds.ready(session, wanted.canonical.digest)

    record(session, wanted, overlay(session, wanted))

    assert builds.ready(session, wanted.canonical.digest).state == READY


def test_a_full_queue_is_told(session: Session, wanted: recipes.Resolved) -> None:
    for number in range(LIMITS.queued):
        operations.request(session, "build", str(number), {}, by=OWNER, on=queue.GPU, limits=LIMITS)

    with pytest.raises(errors.QueueFull):
        request(session, wanted)


def test_several_weight_files_must_be_named(session: Session) -> None:
    files = {"unet/model.safetensors": "u", "vae/model.safetensors": "v"}
    clean = publish_model(session, files=files)
    touched = (("unet/model.safetensors", "conv.weight", (4, 3, 3, 3), "additive"),)
    publish_patch(session, clean=clean, touched=touched)
    operations.worker_seen(session, "w1", [queue.GPU], "cpu")
    wanted = recipes.resolve(session, recipe(fog="1"), require="same_base")
    base = models.headers(session, clean.weight_files)["unet/model.safetensors"]
    header = overlay_header(base, ["conv.weight"])
    made = Overlay("unet/model.safetensors", digest("o"), header.file_size, header.raw)
    record(session, wanted, made)
    build = builds.ready(session, wanted.canonical.digest)

    with pytest.raises(errors.SeveralFiles, match=r"unet/model\.safetensors"):
        plans.plan(session, build, Part.WEIGHTS, None)
    untouched = plans.plan(session, build, Part.WEIGHTS, "vae/model.safetensors")
    only = plans.plan(session, build, Part.OVERLAY, None)

    assert untouched.plan.etag == digest("v").removeprefix("sha256:")
    assert only.path == "unet/model.safetensors"

from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from service import errors, queue
from service.db.tables.builds import BUILDING, EXPIRED, READY
from service.layout.overlay import overlay_header
from service.registry import builds, models, operations, recipes, sweeps
from service.registry.access import OWNER
from service.registry.builds import Overlay
from service.registry.operations import Limits
from service.registry.recipes import Resolved
from tests.factories import digest, publish_model, publish_patch, recipe

LIMITS = Limits(queued=5, stalled_after=timedelta(seconds=30))


@pytest.fixture
def wanted(session: Session) -> list[Resolved]:
    publish_patch(session, clean=publish_model(session))
    operations.worker_seen(session, "w1", [queue.GPU], "cpu")
    return [
        recipes.resolve(session, recipe(fog=scale), require="same_base")
        for scale in ("0", "0.5", "1", "0.5")
    ]


def _overlay(session: Session, wanted: Resolved, content: str) -> Overlay:
    base = models.headers(session, wanted.base.weight_files)["model.safetensors"]
    header = overlay_header(base, ["conv.weight"])
    return Overlay("model.safetensors", digest(content), header.file_size, header.raw)


def test_one_operation_makes_what_is_missing_once(session: Session, wanted: list[Resolved]) -> None:
    found, operation = sweeps.request(session, wanted, by=OWNER, limits=LIMITS)

    assert operation is not None
    assert [build.state for build in found] == [READY, BUILDING, BUILDING, BUILDING]
    missing = {each.canonical.digest for each in wanted[1:]}
    assert (set(operation.request["recipes"]), len(operation.request["recipes"])) == (missing, 2)
    again, same = sweeps.request(session, wanted, by=OWNER, limits=LIMITS)
    assert same is not None
    assert (same.id, again) == (operation.id, found)


def test_what_cannot_be_carried_out_is_listed_beside_what_was(
    session: Session, wanted: list[Resolved]
) -> None:
    _, operation = sweeps.request(session, wanted, by=OWNER, limits=LIMITS)
    assert operation is not None
    failure = errors.ScaleOverflows("conv.weight", "F16")

    result = sweeps.record(session, operation, [[_overlay(session, wanted[1], "one")], failure])

    done, failed = operation.request["recipes"]
    assert [build["recipe"] for build in result["builds"]] == [done]
    assert [each["recipe"] for each in result["failed"]] == [failed]
    assert "conv.weight" in result["failed"][0]["detail"]
    states = [builds.find(session, builds.hex_of(done)).state]
    assert states == [READY]
    claimed, under_way = builds.claim(
        session, next(each for each in wanted if each.canonical.digest == failed), by=OWNER
    )
    assert (claimed.state, under_way) == (EXPIRED, None)


def test_a_sweep_of_which_nothing_can_be_made_fails(
    session: Session, wanted: list[Resolved]
) -> None:
    _, operation = sweeps.request(session, wanted, by=OWNER, limits=LIMITS)
    assert operation is not None

    with pytest.raises(errors.ScaleOverflows):
        sweeps.record(session, operation, [errors.ScaleOverflows("w", "F16")] * 2)


def test_recipes_on_different_weights_are_refused(session: Session, wanted: list[Resolved]) -> None:
    publish_model(session, "vision/other", content="other")
    elsewhere = recipes.resolve(
        session, recipe("vision/other", fog="1"), require="same_architecture"
    )

    with pytest.raises(errors.SeveralBases, match=r"vision/net@1, vision/other@1"):
        sweeps.request(session, [*wanted, elsewhere], by=OWNER, limits=LIMITS)

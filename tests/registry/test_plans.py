import pytest
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.builds import EXPIRED, Build
from service.layout.splice import BlobRange, Literal, Plan
from service.names import Digest
from service.registry import builds, operations, plans, recipes
from service.registry.access import OWNER
from service.registry.plans import FilePlan, Part
from tests.factories import digest, publish_model


def file_plan(name: str, *segments: Literal | BlobRange) -> FilePlan:
    base = digest("base")
    return FilePlan(Plan(segments, name), name, digest(name), "vision/net@1", base, None)


def key(name: str) -> plans.Key:
    return (digest(name), Part.UNDO, None)


def test_plans_are_kept_until_others_need_the_room() -> None:
    kept = plans.Kept(limit_bytes=2500)
    made = {name: file_plan(name, Literal(b"x" * 1000)) for name in "abc"}
    kept.put(key("a"), made["a"])
    kept.put(key("b"), made["b"])

    kept.get(key("a"))
    kept.put(key("c"), made["c"])

    found = {name for name in made if kept.get(key(name))}
    assert found == {"a", "c"}


def test_a_plan_that_alone_needs_more_is_not_kept_and_harms_none() -> None:
    kept = plans.Kept(limit_bytes=500)

    kept.put(key("a"), file_plan("a", Literal(b"x" * 1000)))
    kept.put(key("b"), file_plan("b", BlobRange(digest("base"), 0, 8)))

    assert kept.get(key("a")) is None
    assert kept.get(key("b")) is not None


@pytest.fixture
def build(session: Session) -> Build:
    publish_model(session)
    plain = recipes.resolve(session, "vision/net", require="same_base")
    made, _ = builds.request(session, plain, by=OWNER, limits=operations.Limits())
    return made


def test_a_kept_plan_of_a_build_that_expired_since_is_not_served(
    session: Session, build: Build
) -> None:
    kept, wanted = plans.Kept(), Digest(build.recipe_digest)
    first = plans.find(session, kept, wanted, Part.WEIGHTS, None)
    again = plans.find(session, kept, wanted, Part.WEIGHTS, None)

    build.state = EXPIRED
    session.flush()

    assert again is first
    with pytest.raises(errors.BuildNotReady):
        plans.find(session, kept, wanted, Part.WEIGHTS, None)

from decimal import Decimal

import pytest
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.channels import ChannelMove
from service.names import channel_name, patch_name
from service.registry import channels, retirement
from service.registry.access import OWNER
from service.registry.moves import Seen
from service.schemas.recipes import RecipePart
from tests.factories import publish_model, publish_patch, recipe

STABLE = channel_name("vision/stable")
FOG = patch_name("vision/fog")


@pytest.fixture(autouse=True)
def catalogue(session: Session) -> None:
    clean = publish_model(session)
    publish_patch(session, "vision/fog", clean=clean)
    publish_patch(session, "vision/rain", clean=clean)


def point(session: Session, seen: Seen, /, **scales: str) -> ChannelMove:
    move, _ = channels.point(
        session, STABLE, recipe(**scales), require="same_architecture", seen=seen, by=OWNER
    )
    return move


def entered(move: ChannelMove) -> dict[str, str]:
    return {part["patch"]: part["scale"] for part in move.entered}


def test_the_second_of_two_writers_is_told(session: Session) -> None:
    point(session, "nothing", fog="1")
    point(session, 1, fog="0.5")

    with pytest.raises(errors.StateMoved) as caught:
        point(session, 1, fog="2")

    assert caught.value.now == "2"


def test_a_first_move_says_that_there_is_nothing_yet(session: Session) -> None:
    with pytest.raises(errors.StateNotNamed, match=r"If-None-Match: \*"):
        point(session, None, fog="1")


def test_parts_are_added_rescaled_and_dropped(session: Session) -> None:
    point(session, "nothing", fog="1")

    added = channels.add(
        session, STABLE, RecipePart(patch="vision/rain", scale=Decimal("0.5")), seen=1, by=OWNER
    )
    rescaled = channels.rescale(session, STABLE, FOG, Decimal(0), seen=2, by=OWNER)
    dropped = channels.drop(session, STABLE, FOG, seen=3, by=OWNER)

    assert entered(added) == {"vision/fog": "1", "vision/rain": "0.5"}
    assert entered(rescaled) == {"vision/fog": "0", "vision/rain": "0.5"}
    assert len(rescaled.recipe.patches) == 1
    assert entered(dropped) == {"vision/rain": "0.5"}
    assert dropped.recipe_digest == rescaled.recipe_digest


def test_a_patch_is_listed_once(session: Session) -> None:
    point(session, "nothing", fog="1")

    with pytest.raises(errors.ThingExists, match="vision/fog"):
        channels.add(
            session, STABLE, RecipePart(patch="vision/fog", scale=Decimal(1)), seen=1, by=OWNER
        )


def test_a_patch_entered_twice_is_listed_once_at_the_sum(session: Session) -> None:
    twice = "vision/net@main+fog=0.3+fog=0.4"

    move, _ = channels.point(
        session, STABLE, twice, require="same_architecture", seen="nothing", by=OWNER
    )

    assert entered(move) == {"vision/fog": "0.7"}


def test_a_patch_that_is_not_listed_is_neither_rescaled_nor_dropped(session: Session) -> None:
    point(session, "nothing")

    with pytest.raises(errors.ThingNotFound, match="vision/fog"):
        channels.rescale(session, STABLE, FOG, Decimal(1), seen=1, by=OWNER)
    with pytest.raises(errors.ThingNotFound, match="vision/fog"):
        channels.drop(session, STABLE, FOG, seen=1, by=OWNER)


def test_a_channel_goes_back_to_any_move_and_to_clean(session: Session) -> None:
    first = point(session, "nothing", fog="1")
    point(session, 1, rain="1")

    back = channels.revert(session, STABLE, 1, seen=2, by=OWNER)
    clean = channels.revert(session, STABLE, "clean", seen=3, by=OWNER)

    assert (back.recipe_digest, back.reverted_to) == (first.recipe_digest, 1)
    assert clean.recipe.patches == []
    assert [m.action for m in history(session)] == ["revert", "revert", "point", "point"]


def history(session: Session) -> list[ChannelMove]:
    channel = channels.find(session, STABLE)
    return list(channels.history(session, channel, before=None, limit=10))


def test_a_channel_keeps_the_version_it_was_pointed_at(session: Session) -> None:
    point(session, "nothing", fog="1")
    publish_patch(session, "vision/fog", content="newer fog")

    moved = channels.rescale(session, STABLE, FOG, Decimal("0.5"), seen=1, by=OWNER)

    assert moved.entered == [{"patch": "vision/fog", "version": 1, "scale": "0.5"}]


def test_a_deleted_channel_is_gone_and_its_moves_go_on_counting(session: Session) -> None:
    point(session, "nothing", fog="1")

    channels.delete(session, STABLE, seen=1)

    with pytest.raises(errors.ThingDeleted):
        channels.find(session, STABLE)
    assert point(session, "nothing", fog="1").number == 2


def test_what_a_channel_points_at_is_not_deleted(session: Session) -> None:
    move = point(session, "nothing", fog="1")
    (part,) = move.recipe.patches

    with pytest.raises(errors.StillNeeded, match="vision/stable"):
        retirement.delete_patch_version(session, part.version)
    with pytest.raises(errors.StillNeeded, match="vision/stable"):
        retirement.delete_model_version(session, move.recipe.base, by=OWNER)

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from service import errors
from service.names import patch_name
from service.registry import patches, recipes, retirement
from service.registry.access import OWNER
from service.schemas.recipes import RecipeBody, RecipePart
from tests.factories import publish_model, publish_patch, recipe


def resolve(session: Session, wanted: RecipeBody | str) -> recipes.Resolved:
    return recipes.resolve(session, wanted, require="same_architecture")


def test_a_string_and_an_object_name_the_same_recipe(session: Session) -> None:
    clean = publish_model(session)
    publish_patch(session, clean=clean)

    as_text = resolve(session, "vision/net@main+fog=0.50")

    assert as_text.canonical == resolve(session, recipe(fog="0.5")).canonical
    assert recipes.pinned(as_text) == "vision/net@1+fog~1=0.5"
    assert as_text.overlay_bytes == 4 * 3 * 3 * 3 * 4


def test_the_pinned_string_resolves_to_the_same_recipe_later(session: Session) -> None:
    clean = publish_model(session)
    publish_patch(session, clean=clean)
    before = resolve(session, "vision/net@main+fog=1")
    publish_patch(session, content="fog again")
    publish_model(session, content="newer")

    again = resolve(session, recipes.pinned(before))

    assert again.canonical == before.canonical


def test_the_newest_version_that_is_not_withdrawn_is_taken(session: Session) -> None:
    publish_model(session)
    first = publish_patch(session, content="one")
    second = publish_patch(session, content="two")
    retirement.withdraw(session, second, "worse")

    chosen = resolve(session, "vision/net@main+fog=1")
    pinned = resolve(session, "vision/net@main+fog~2=1")

    assert [part.version.id for part in chosen.parts] == [first.id]
    assert [part.version.id for part in pinned.parts] == [second.id]
    assert any("withdrawn" in warning for warning in recipes.warnings(pinned))


def test_zero_scales_stay_as_entered_and_leave_the_recipe(session: Session) -> None:
    publish_model(session)
    publish_patch(session)

    made = resolve(session, recipe(fog="0"))

    assert [part.scale for part in made.entered] == [Decimal(0)]
    assert made.parts == ()


def test_two_versions_of_one_patch_are_refused(session: Session) -> None:
    publish_model(session)
    publish_patch(session, content="one")
    publish_patch(session, content="two")

    with pytest.raises(errors.TwoVersionsOfOnePatch, match="1 and 2"):
        resolve(session, "vision/net@main+fog~1=1+fog~2=1")


def test_one_patch_entered_twice_is_merged_and_then_bounded(session: Session) -> None:
    publish_model(session)
    publish_patch(session)

    merged = resolve(session, "vision/net@main+fog=0.3+fog=0.3")

    assert [part.scale for part in merged.parts] == [Decimal("0.6")]
    with pytest.raises(errors.BadScale):
        resolve(session, "vision/net@main+fog=6+fog=6")


def test_a_patch_whose_tensor_the_base_lacks_does_not_fit(session: Session) -> None:
    publish_model(session)
    publish_patch(session, touched=(("model.safetensors", "gone.weight", (4,), "additive"),))

    with pytest.raises(errors.DoesNotFit, match=r"gone\.weight"):
        resolve(session, recipe(fog="1"))


def test_a_patch_of_another_shape_does_not_fit(session: Session) -> None:
    publish_model(session)
    publish_patch(session, touched=(("model.safetensors", "conv.weight", (8, 3), "additive"),))

    with pytest.raises(errors.DoesNotFit, match="8x3"):
        resolve(session, recipe(fog="1"))


def test_one_tensor_does_not_move_in_two_ways(session: Session) -> None:
    publish_model(session)
    address = ("model.safetensors", "conv.weight", (4, 3, 3, 3))
    publish_patch(session, "vision/fog", touched=((*address, "additive"),))
    publish_patch(session, "vision/rain", touched=((*address, "log-ratio"),))

    with pytest.raises(errors.DoesNotFit, match="both"):
        resolve(session, recipe(fog="1", rain="1"))


def test_a_patch_of_other_weights_fits_by_architecture_unless_told_otherwise(
    session: Session,
) -> None:
    elsewhere = publish_model(session, "vision/other", content="other weights")
    publish_model(session)
    publish_patch(session, clean=elsewhere)

    made = resolve(session, recipe(fog="1"))

    assert recipes.fit_of(made.parts[0].version, made.base) == "same_architecture"
    with pytest.raises(errors.NotTheSameBase, match="vision/other@1"):
        recipes.resolve(session, recipe(fog="1"), require="same_base")


def test_a_saved_recipe_is_found_by_its_digest(session: Session) -> None:
    publish_model(session)
    publish_patch(session)
    made = resolve(session, recipe(fog="-0.25"))
    recipes.save(session, made, by=OWNER)
    recipes.save(session, made, by=OWNER)

    found = resolve(session, made.canonical.digest)

    assert found.canonical == made.canonical


def test_a_deleted_patch_version_is_gone(session: Session) -> None:
    publish_model(session)
    version = publish_patch(session)

    retirement.delete_patch_version(session, version)

    with pytest.raises(errors.ThingDeleted):
        resolve(session, "vision/net@main+fog~1=1")
    with pytest.raises(errors.ThingNotFound, match="no version that is not withdrawn"):
        resolve(session, "vision/net@main+fog=1")


def test_the_same_patch_file_again_is_the_same_version(session: Session) -> None:
    first = publish_patch(session, content="same")

    again = publish_patch(session, content="same")

    assert again.id == first.id
    assert len(patches.versions(session, patch_name("vision/fog"), before=None, limit=5)) == 1


def test_a_part_without_version_in_an_object_takes_the_newest(session: Session) -> None:
    publish_model(session)
    publish_patch(session, content="one")
    publish_patch(session, content="two")
    body = RecipeBody(
        base="vision/net@1", patches=[RecipePart(patch="vision/fog", scale=Decimal(1))]
    )

    assert [part.version.number for part in resolve(session, body).parts] == [2]


def test_a_recorded_recipe_is_refused_once_a_part_is_deleted(session: Session) -> None:
    clean = publish_model(session)
    patch = publish_patch(session, clean=clean)
    digest = recipes.save(session, resolve(session, recipe(fog="1")), by=OWNER).digest
    retirement.delete_patch_version(session, patch)

    with pytest.raises(errors.ThingDeleted, match="vision/fog@1"):
        resolve(session, digest)


def test_a_recipe_that_was_resolved_before_a_deletion_is_not_saved(session: Session) -> None:
    clean = publish_model(session)
    patch = publish_patch(session, clean=clean)
    before = resolve(session, recipe(fog="1"))
    retirement.delete_patch_version(session, patch)

    with pytest.raises(errors.ThingDeleted, match="vision/fog@1"):
        recipes.save(session, before, by=OWNER)


def test_the_wanted_base_is_asked_of_a_recorded_recipe_too(session: Session) -> None:
    publish_model(session)
    publish_patch(session)
    digest = recipes.save(session, resolve(session, recipe(fog="1")), by=OWNER).digest

    with pytest.raises(errors.NotTheSameBase):
        recipes.resolve(session, digest, require="same_base")


def test_a_recipe_of_too_many_patches_is_refused(session: Session) -> None:
    publish_model(session)
    publish_patch(session)

    with pytest.raises(errors.BadRecipe, match="101 patches"):
        resolve(session, "vision/net@main" + "+fog=0" * 101)


def test_a_deletion_waits_for_whoever_saves_a_recipe(own_sessions: sessionmaker[Session]) -> None:
    with own_sessions.begin() as session:
        clean = publish_model(session)
        patch = publish_patch(session, clean=clean)

    with own_sessions.begin() as saving, own_sessions.begin() as deleting:
        recipes.save(saving, resolve(saving, recipe(fog="1")), by=OWNER)
        deleting.execute(text("set local lock_timeout = '200ms'"))

        with pytest.raises(OperationalError, match="lock timeout"):
            retirement.delete_patch_version(deleting, deleting.merge(patch))

        deleting.rollback()


def test_a_commit_is_found_on_every_model_that_holds_the_weights_and_on_no_other(
    session: Session,
) -> None:
    first = publish_model(session, "vision/net")
    fork = publish_model(session, "vision/fork")
    other = publish_model(session, "vision/other", content="other")
    plain = recipes.resolve(session, "vision/net", require="same_base")
    recipes.save(session, plain, by=OWNER)
    commit = plain.canonical.digest.removeprefix("sha256:")[:40]
    first.deleted_at = datetime.now(UTC)
    session.flush()

    found = recipes.of_commit(session, fork.model, commit)

    assert (found.base.reference, found.canonical) == ("vision/fork@1", plain.canonical)
    for model in (first.model, other.model):
        with pytest.raises(errors.ThingNotFound, match=commit):
            recipes.of_commit(session, model, commit)


def test_many_recipes_are_resolved_as_each_is_and_what_they_share_is_read_once(
    session: Session,
) -> None:
    clean = publish_model(session)
    publish_patch(session, clean=clean)
    publish_patch(session, "vision/blur", clean=clean)
    alone = [
        resolve(session, recipe(fog=f"{n / 10}", **({"blur": "1"} if n % 2 else {})))
        for n in range(1, 9)
    ]
    recipes.save(session, alone[0], by=OWNER)
    wanted: list[RecipeBody | str] = [alone[0].canonical.digest]
    wanted += [recipes.pinned(each) for each in alone[1:]]
    counts, found = [], []

    for count in (3, len(wanted)):
        statements: list[str] = []

        def note(*args: object, statements: list[str] = statements) -> None:
            statements.append(str(args[2]))

        event.listen(session.connection(), "before_cursor_execute", note)
        found = recipes.resolve_all(session, wanted[:count], require="same_architecture")
        event.remove(session.connection(), "before_cursor_execute", note)
        counts.append(len(statements))

    assert [each.canonical for each in found] == [each.canonical for each in alone]
    assert [each.parts for each in found] == [each.parts for each in alone]
    assert [each.overlay_bytes for each in found] == [each.overlay_bytes for each in alone]
    assert counts[0] == counts[1]

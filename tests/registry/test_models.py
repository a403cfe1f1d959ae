import pytest
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.models import Model
from service.names import model_name, model_reference
from service.registry import aliases, blobs, lines, models, retirement
from service.registry.access import OWNER
from tests.factories import digest, publish_model

NET = model_name("vision/net")


def test_versions_are_numbered_and_main_follows(session: Session) -> None:
    publish_model(session, content="one")
    second = publish_model(session, content="two")

    found = models.resolve(session, model_reference("vision/net"))

    assert (found.id, found.number) == (second.id, 2)


def test_the_same_files_again_are_the_same_version(session: Session) -> None:
    first = publish_model(session)

    again = publish_model(session)

    assert again.id == first.id


def test_a_readme_edit_is_a_new_version_with_the_same_weights(session: Session) -> None:
    first = publish_model(session)
    blobs.record(session, digest("readme"), 6)
    files = {"model.safetensors": digest("clean"), "README.md": digest("readme")}

    second, new = models.publish(session, NET, files, {}, by=OWNER)

    assert new
    assert second.weights_digest == first.weights_digest
    assert second.files_digest != first.files_digest


def test_main_stays_where_somebody_moved_it(session: Session) -> None:
    publish_model(session, content="one")
    publish_model(session, content="two")
    model = lines.find(session, Model, NET, lock=True)
    aliases.point(session, model, "main", 1, seen=2, by=OWNER)

    publish_model(session, content="three")

    assert models.resolve(session, model_reference("vision/net@main")).number == 1


def test_the_second_of_two_writers_of_an_alias_is_told(session: Session) -> None:
    publish_model(session)
    model = lines.find(session, Model, NET, lock=True)
    aliases.point(session, model, "production", 1, seen="nothing", by=OWNER)

    with pytest.raises(errors.StateMoved) as caught:
        aliases.point(session, model, "production", 1, seen="nothing", by=OWNER)

    assert caught.value.now == "1"


def test_a_change_that_names_no_state_is_refused_with_the_state(session: Session) -> None:
    publish_model(session)
    model = lines.find(session, Model, NET, lock=True)

    with pytest.raises(errors.StateNotNamed, match='If-Match: "1"'):
        aliases.point(session, model, "main", 1, seen=None, by=OWNER)


def test_names_that_differ_in_case_are_one(session: Session) -> None:
    first = publish_model(session, "vision/Net")

    found = models.resolve(session, model_reference("VISION/nET"))

    assert found.id == first.id


def test_an_unknown_version_and_an_unknown_alias_are_named(session: Session) -> None:
    publish_model(session)

    for revision in ("7", "nightly"):
        with pytest.raises(errors.ThingNotFound, match=revision):
            models.resolve(session, model_reference(f"vision/net@{revision}"))


def test_a_blob_that_was_not_uploaded_is_named(session: Session) -> None:
    publish_model(session)

    with pytest.raises(errors.BlobNotFound, match=digest("elsewhere")):
        models.publish(session, NET, {"a.safetensors": digest("elsewhere")}, {}, by=OWNER)


def test_a_deleted_version_is_gone_and_its_number_is_never_used_again(session: Session) -> None:
    publish_model(session, content="one")
    second = publish_model(session, content="two")

    retirement.delete_model_version(session, second, by=OWNER)

    with pytest.raises(errors.ThingDeleted):
        models.version(session, NET, 2)
    assert models.resolve(session, model_reference("vision/net")).number == 1
    assert publish_model(session, content="three").number == 3


def test_an_alias_that_followed_to_a_deleted_version_moves_back(session: Session) -> None:
    publish_model(session, content="one")
    second = publish_model(session, content="two")
    main = aliases.require(session, second.model, "main")

    retirement.delete_model_version(session, second, by=OWNER)

    moves = aliases.history(session, main, before=None, limit=10)
    assert [(move.number, move.version_number) for move in moves] == [(3, 1), (2, 2), (1, 1)]
    with pytest.raises(errors.StateMoved):
        aliases.point(session, second.model, "main", 1, seen=2, by=OWNER)


def test_a_version_that_an_alias_names_is_not_deleted(session: Session) -> None:
    version = publish_model(session)
    model = lines.find(session, Model, NET, lock=True)
    aliases.point(session, model, "production", 1, seen="nothing", by=OWNER)

    with pytest.raises(errors.AliasesPoint, match="production"):
        retirement.delete_model_version(session, version, by=OWNER)


def test_a_deleted_model_is_gone_until_it_is_described_again(session: Session) -> None:
    publish_model(session)

    retirement.delete_model(session, NET, by=OWNER)

    with pytest.raises(errors.ThingDeleted):
        lines.find(session, Model, NET)
    assert publish_model(session, content="anew").number == 2


def test_words_and_labels_find_models_and_wildcards_are_plain_text(session: Session) -> None:
    for name, labels in (("vision/fog-net", ["cnn"]), ("vision/other", ["fog"]), ("a/b_c", [])):
        named = model_name(name)
        lines.describe(session, Model, named, card="", license=None, labels=labels, by=OWNER)

    def found(words: str) -> list[str]:
        rows = lines.listed(session, Model, words=words, after=None, limit=10)
        return [row.full_name for row in rows]

    assert found("fog") == ["vision/fog-net", "vision/other"]
    assert found("vision cnn") == ["vision/fog-net"]
    assert found("b_c") == ["a/b_c"]
    assert found("%") == []


def test_only_main_follows_when_a_deleted_model_begins_anew(session: Session) -> None:
    publish_model(session)
    model = lines.find(session, Model, NET, lock=True)
    aliases.point(session, model, "production", 1, seen="nothing", by=OWNER)
    retirement.delete_model(session, NET, by=OWNER)

    publish_model(session, content="anew")

    assert models.resolve(session, model_reference("vision/net")).number == 2
    with pytest.raises(errors.ThingNotFound, match="names no version"):
        models.resolve(session, model_reference("vision/net@production"))

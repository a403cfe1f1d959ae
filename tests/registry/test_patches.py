from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from service.names import patch_name
from service.registry import patches
from tests.factories import publish_model, publish_patch, signature

FOG = patch_name("vision/fog")


@pytest.fixture
def statements(engine: Engine) -> Iterator[list[str]]:
    """What the database is asked, in order."""
    asked: list[str] = []

    def note(*execution: object) -> None:
        asked.append(str(execution[2]))

    event.listen(engine, "before_cursor_execute", note)
    yield asked
    event.remove(engine, "before_cursor_execute", note)


def test_the_same_file_again_is_the_same_version(session: Session) -> None:
    first = publish_patch(session, content="fog")

    again = publish_patch(session, content="fog")
    other = publish_patch(session, content="more fog")

    assert (again.id, other.number) == (first.id, 2)


def test_the_models_that_a_patch_came_from_are_found_by_digest(session: Session) -> None:
    clean = publish_model(session)
    made = publish_patch(session, content="first")

    version, _ = patches.publish(
        session,
        FOG,
        signature("first", clean=clean.weights_digest),
        profile=None,
        operation=None,
        by="ci",
        lineage={},
    )
    publish_patch(session, clean=clean, content="second")

    assert (version.id, version.clean) == (made.id, None)
    newest = patches.resolve(session, FOG, None)
    assert newest.clean is not None
    assert newest.clean.reference == "vision/net@1"


def test_a_list_of_versions_costs_as_many_statements_whatever_its_length(
    session: Session, statements: list[str]
) -> None:
    for number in range(4):
        clean = publish_model(session, content=f"clean {number}")
        publish_patch(session, content=f"fog {number}", clean=clean)

    def cost(limit: int) -> int:
        session.expunge_all()
        statements.clear()
        rows = patches.versions(session, FOG, before=None, limit=limit)
        assert all(row.clean is not None and row.clean.reference for row in rows)
        assert len(rows) == limit
        return len(statements)

    assert cost(4) == cost(2)
    assert not any("patch_versions.tensors" in asked for asked in statements)

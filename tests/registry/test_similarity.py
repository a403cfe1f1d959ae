"""The index of signatures: complete, bounded, and without what is withdrawn."""

from collections.abc import Iterable
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from service import queue
from service.db.tables.operations import Operation
from service.db.tables.patches import PatchVersion
from service.db.tables.similarity import MeasuredSignature, Neighbour
from service.registry import operations, retirement, similarity
from service.registry.access import OWNER
from tests.factories import publish_patch


def asked(session: Session) -> Operation:
    return similarity.bring_up_to_date(session, by="owner")


def measured(*versions: PatchVersion, problem: str | None = None) -> list[dict[str, Any]]:
    return [
        {
            "version_id": version.id,
            "keys": b"",
            "energies": b"",
            "sketch": b"",
            "length": 1.0,
            "problem": problem,
        }
        for version in versions
    ]


def near(one: int, other: int, cosine: float) -> dict[str, Any]:
    return {
        "version_id": one,
        "neighbour_id": other,
        "cosine": cosine,
        "error": 0.0,
        "own_share": 1.0,
        "other_share": 0.5,
        "strength": abs(cosine),
    }


def listed(session: Session, version: PatchVersion, **filters: Any) -> list[str]:
    given: dict[str, Any] = {"label": None, "sign": "any", "after": None, "limit": 100, **filters}
    rows = similarity.neighbours(session, version, **given)
    return [other.patch.name for _, other in rows]


def missing(session: Session, first: int | None = None) -> list[int]:
    return [each.version_id for each in similarity.unmeasured(session, {"first": first})]


def publish(session: Session, names: Iterable[str]) -> list[PatchVersion]:
    return [publish_patch(session, f"vision/{name}") for name in names]


# ── what is to be measured ───────────────────────────────────────────────────────────────────


def test_what_was_published_before_is_measured_too_oldest_first(session: Session) -> None:
    a, b, c = publish(session, "abc")

    assert missing(session) == [a.id, b.id, c.id]
    assert missing(session, first=c.id) == [c.id, a.id, b.id]


def test_what_is_withdrawn_or_deleted_takes_no_part(session: Session) -> None:
    a, b, c = publish(session, "abc")
    similarity.record(session, asked(session), measured(a, b, c), [])
    d, e = publish(session, "de")
    for version in (b, d):
        retirement.withdraw(session, version, "worse")
    for version in (c, e):
        retirement.delete_patch_version(session, version)

    assert missing(session) == []
    assert [each.version_id for each in similarity.known(session)] == [a.id]


def test_one_operation_measures_a_bounded_batch_and_the_next_goes_on(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity, "BATCH", 2)
    a, b, c = publish(session, "abc")
    first = asked(session)
    operations.begin(session, first.id, worker="w")

    result = similarity.record(session, first, measured(a, b), [])

    following = asked(session)
    assert result["measured"] == 2
    assert following.id != first.id
    assert missing(session) == [c.id]


def test_a_large_file_is_measured_alone(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "BATCH_BYTES", 10)
    a, _ = publish(session, "ab")

    assert missing(session) == [a.id]


def test_an_operation_that_waits_is_asked_for_once(own_sessions: sessionmaker[Session]) -> None:
    with own_sessions.begin() as session:
        first = asked(session).id
    with own_sessions.begin() as session:
        again = asked(session).id
        with own_sessions.begin() as beside:  # it cannot begin before what is published is seen
            held = select(Operation.id).with_for_update(skip_locked=True)
            assert beside.scalars(held).all() == []
    with own_sessions.begin() as session:
        operations.begin(session, first, worker="w")
        later = asked(session).id

    assert again == first != later


def test_it_is_asked_for_however_full_the_queue_is(session: Session) -> None:
    limits = operations.Limits(queued=1)
    operations.request(session, "bench", "", {}, by=OWNER, on=queue.CPU, limits=limits)

    assert asked(session).kind == similarity.INDEX


# ── neighbours ───────────────────────────────────────────────────────────────────────────────


def test_only_the_nearest_are_kept_and_the_last_of_them_is_the_bar(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity, "KEPT", 2)
    a, *others = publish(session, "abcd")
    floor = select(MeasuredSignature.floor).where(MeasuredSignature.version_id == a.id)
    similarity.record(
        session, asked(session), measured(a, *others), [near(a.id, others[0].id, 0.3)]
    )
    before = session.scalar(floor)

    rows = [near(a.id, others[1].id, -0.5), near(a.id, others[2].id, 0.4)]
    similarity.record(session, asked(session), [], rows)

    assert listed(session, a) == ["c", "d"]
    assert (before, session.scalar(floor)) == (-1.0, 0.4)
    assert session.scalar(select(func.count()).select_from(Neighbour)) == 2


def test_measuring_twice_is_harmless(session: Session) -> None:
    a, b = publish(session, "ab")
    rows = [near(a.id, b.id, 0.3), near(b.id, a.id, 0.3)]

    for cosine in (0.3, 0.6):
        rows[0] |= {"cosine": cosine, "strength": cosine}
        similarity.record(session, asked(session), measured(a, b), rows)

    [(found, _)] = similarity.neighbours(session, a, label=None, sign="any", after=None, limit=10)
    assert found.cosine == 0.6


def test_neighbours_are_listed_by_sign_label_and_page(session: Session) -> None:
    a, b, c, d = publish(session, "abcd")
    b.patch.labels = ["fog"]
    rows = [near(a.id, b.id, 0.2), near(a.id, c.id, -0.9), near(a.id, d.id, 0.2)]
    similarity.record(session, asked(session), measured(a, b, c, d), rows)

    assert listed(session, a) == ["c", "b", "d"]
    assert listed(session, a, sign="positive") == ["b", "d"]
    assert listed(session, a, sign="negative") == ["c"]
    assert listed(session, a, label="fog") == ["b"]
    assert listed(session, a, limit=1) == ["c"]
    assert listed(session, a, after=(0.2, b.id)) == ["d"]


@pytest.mark.parametrize("deleted", [False, True])
def test_a_neighbour_that_is_retired_makes_room_for_others(
    session: Session, monkeypatch: pytest.MonkeyPatch, *, deleted: bool
) -> None:
    monkeypatch.setattr(similarity, "KEPT", 1)
    a, b, c = publish(session, "abc")
    similarity.record(session, asked(session), measured(a, b, c), [near(a.id, b.id, 0.9)])
    before = [each.floor for each in similarity.known(session) if each.version_id == a.id]

    if deleted:
        retirement.delete_patch_version(session, b)
    else:
        retirement.withdraw(session, b, "worse")

    after = [each.floor for each in similarity.known(session) if each.version_id == a.id]
    assert listed(session, a) == []
    assert (before, after) == ([0.9], [-1.0])


def test_what_cannot_be_read_is_not_tried_for_ever(session: Session) -> None:
    (a,) = publish(session, "a")

    result = similarity.record(session, asked(session), measured(a, problem="torn"), [])

    assert result["problems"] == {str(a.id): "torn"}
    assert similarity.is_complete(session)
    assert similarity.known(session) == []

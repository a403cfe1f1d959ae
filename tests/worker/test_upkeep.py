"""Collections and audits over a real store and database, cut off where it hurts."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from service import errors
from service.blobs.folder import FolderStore
from service.db.tables.blobs import Blob
from service.names import Digest, digest_of
from service.registry import blobs, collection
from service.worker import upkeep
from service.worker.kinds.kind import Hands
from service.worker.kinds.upkeep import AUDITING, Audit, Outcome
from service.worker.upkeep import Removed

LATER = datetime.now(UTC) + timedelta(days=1)


def _store(store: FolderStore, sessions: sessionmaker[Session], content: bytes) -> Digest:
    digest = digest_of(content)
    with store.writer(digest, len(content)) as writer:
        writer.write(content)
        writer.commit()
    with sessions.begin() as session:
        blobs.record(session, digest, len(content))
    return digest


def test_bytes_and_row_go_together(own_sessions: sessionmaker[Session], store: FolderStore) -> None:
    digest = _store(store, own_sessions, b"unneeded")

    gone = upkeep.collect(own_sessions, store, LATER)

    assert (gone, upkeep.collect(own_sessions, store, LATER)) == (Removed(1, 8), Removed())
    assert store.stat(digest) is None
    with own_sessions.begin() as session:
        assert session.get(Blob, digest) is None


def test_a_collection_that_is_cut_off_is_finished_by_the_next(
    own_sessions: sessionmaker[Session], store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = _store(store, own_sessions, b"unneeded")

    class Killed(Exception):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("service.registry.collection.removed", kill)
        with pytest.raises(Killed):
            upkeep.collect(own_sessions, store, LATER)

    with own_sessions.begin() as session:  # the bytes are gone, and nobody is told otherwise
        assert store.stat(digest) is None
        assert blobs.known(session, digest) is None
    assert upkeep.collect(own_sessions, store, LATER) == Removed(1, 8)


def test_a_blob_that_is_stored_anew_before_its_removal_stays(
    own_sessions: sessionmaker[Session], store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = _store(store, own_sessions, b"wanted again")
    hold = collection.hold

    def stored_anew(session: Session, digest: Digest) -> bool:
        with monkeypatch.context() as patch:
            patch.undo()
            _store(store, own_sessions, b"wanted again")
        return hold(session, digest)

    monkeypatch.setattr("service.registry.collection.hold", stored_anew)
    gone = upkeep.collect(own_sessions, store, LATER)

    assert gone == Removed()
    assert store.read(digest, 0, 12) == b"wanted again"
    with own_sessions.begin() as session:
        assert blobs.known(session, digest) is not None


def test_what_was_stored_and_never_recorded_is_adopted(
    own_sessions: sessionmaker[Session], store: FolderStore
) -> None:
    content = b"litter"
    with store.writer(digest_of(content), len(content)) as writer:
        writer.write(content)
        writer.commit()

    assert upkeep.adopt(own_sessions, store) == 1
    assert upkeep.collect(own_sessions, store, LATER) == Removed(1, 6)
    assert list(store.digests()) == []


def test_an_audit_marks_what_is_damaged_and_clears_what_is_whole_again(
    own_sessions: sessionmaker[Session], store: FolderStore
) -> None:
    sound, flipped, short, lost = (
        _store(store, own_sessions, text) for text in (b"sound", b"flipped", b"shorter", b"lost")
    )
    _path(store, flipped).write_bytes(b"flippee")
    _path(store, short).write_bytes(b"short")
    _path(store, lost).unlink()

    first = _audit(own_sessions, store)
    _path(store, flipped).write_bytes(b"flipped")
    second = _audit(own_sessions, store)

    assert first["checked"] == second["checked"] == 4
    assert set(first["damaged"]) == {flipped, short, lost}
    assert set(second["damaged"]) == {short, lost}
    with own_sessions.begin() as session:
        assert blobs.known(session, sound) is not None
        assert blobs.known(session, flipped) is not None
        with pytest.raises(errors.DamagedBlob, match=short):
            blobs.require_sound(session, [sound, short])


def _path(store: FolderStore, digest: Digest) -> Path:
    path = store.local_path(digest)
    assert path is not None
    return path


def _audit(sessions: sessionmaker[Session], store: FolderStore) -> dict[str, Any]:
    assert AUDITING.carry is not None
    job = Audit(before=datetime.now(UTC), only=None, bytes_per_s=None)
    outcome = AUDITING.carry(job, Hands(store, sessions, lambda *_: None))
    assert isinstance(outcome, Outcome)
    return outcome.result

import hashlib
from pathlib import Path
from typing import Any

import pytest

from service import errors
from service.client.client import Client
from service.client.downloads import fetch
from service.client.problem import ServiceProblem
from service.names import digest_of

CONTENT = hashlib.shake_128(b"weights").digest(300_000)
URL = "/file"


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "model.safetensors"


def leftovers(into: Path) -> list[str]:
    return sorted(path.name for path in into.parent.iterdir() if path != into)


@pytest.mark.usefixtures("served")
def test_a_file_arrives_whole_and_nothing_else_is_left(client: Client, into: Path) -> None:
    seen: list[tuple[int, int]] = []

    found = fetch(client.transport, URL, into, progress=lambda *done: seen.append(done))

    assert into.read_bytes() == CONTENT
    assert found is not None
    assert found.digest == digest_of(CONTENT)
    assert found.etag == '"one"'
    assert leftovers(into) == []
    assert seen[-1] == (len(CONTENT), len(CONTENT))


@pytest.mark.usefixtures("served")
def test_a_broken_connection_is_resumed_where_it_broke(
    client: Client, moody: Any, into: Path
) -> None:
    moody.cut_after = [100_000, 50_000]

    fetch(client.transport, URL, into)

    assert into.read_bytes() == CONTENT
    first, second, third = moody.requests("GET")
    assert "Range" not in first
    assert (second["Range"], second["If-Range"]) == ("bytes=100000-", '"one"')
    assert third["Range"] == "bytes=150000-"


def test_a_file_that_changed_meanwhile_begins_anew(
    client: Client, moody: Any, served: Any, into: Path
) -> None:
    moody.cut_after = [100_000] * 8
    with pytest.raises(ServiceProblem):
        fetch(client.transport, "/nothing", into)
    into.parent.mkdir(exist_ok=True)
    into.with_name(into.name + ".part").write_bytes(b"old bytes")
    into.with_name(into.name + ".part.etag").write_text('"an older one"')
    moody.cut_after = []

    fetch(client.transport, URL, into)

    assert into.read_bytes() == served.content
    assert leftovers(into) == []


@pytest.mark.usefixtures("served")
def test_what_an_earlier_run_brought_is_not_fetched_again(
    client: Client, moody: Any, into: Path
) -> None:
    into.parent.mkdir()
    into.with_name(into.name + ".part").write_bytes(CONTENT[:200_000])
    into.with_name(into.name + ".part.etag").write_text('"one"')

    fetch(client.transport, URL, into)

    assert into.read_bytes() == CONTENT
    assert [asked["Range"] for asked in moody.requests("GET")] == ["bytes=200000-"]


@pytest.mark.usefixtures("served")
def test_a_run_that_died_before_the_rename_only_needs_the_rename(
    client: Client, moody: Any, into: Path
) -> None:
    into.parent.mkdir()
    into.with_name(into.name + ".part").write_bytes(CONTENT)
    into.with_name(into.name + ".part.etag").write_text('"one"')

    fetch(client.transport, URL, into)

    assert into.read_bytes() == CONTENT
    assert len(moody.requests("GET")) == 1


def test_a_server_without_ranges_sends_it_all_again(
    client: Client, moody: Any, served: Any, into: Path
) -> None:
    served.takes_ranges = False
    moody.cut_after = [100_000]

    fetch(client.transport, URL, into)

    assert into.read_bytes() == CONTENT


@pytest.mark.usefixtures("served")
def test_bytes_that_do_not_verify_never_get_the_name(client: Client, into: Path) -> None:
    with pytest.raises(errors.NotVerified):
        fetch(client.transport, URL, into, expected=digest_of(b"something else"))

    assert list(into.parent.iterdir()) == []


def test_a_stated_digest_is_checked(client: Client, served: Any, into: Path, moody: Any) -> None:
    into.parent.mkdir()
    into.with_name(into.name + ".part").write_bytes(b"\0" + CONTENT[1:1000])
    into.with_name(into.name + ".part.etag").write_text(served.etag)

    with pytest.raises(errors.NotVerified):
        fetch(client.transport, URL, into)

    assert list(into.parent.iterdir()) == []
    assert len(moody.seen) == 1


def test_what_was_held_against_a_digest_is_told_apart(
    client: Client, served: Any, into: Path
) -> None:
    stated = fetch(client.transport, URL, into)
    served.states_digest = False
    unstated = fetch(client.transport, URL, into)
    expected = fetch(client.transport, URL, into, expected=digest_of(CONTENT))

    found = [fetched.verified for fetched in (stated, unstated, expected) if fetched]
    assert found == [True, False, True]


def test_without_any_digest_the_check_decides(client: Client, served: Any, into: Path) -> None:
    served.states_digest = False

    def refuse(part: Path, digest: str) -> None:
        raise errors.NotVerified(str(part), "right", digest, "try again")

    with pytest.raises(errors.NotVerified):
        fetch(client.transport, URL, into, check=refuse)

    assert list(into.parent.iterdir()) == []


@pytest.mark.usefixtures("served")
def test_an_unchanged_file_is_not_sent(client: Client, into: Path) -> None:
    found = fetch(client.transport, URL, into, headers={"If-None-Match": '"one"'})

    assert found is None
    assert list(into.parent.iterdir()) == []


@pytest.mark.usefixtures("served")
def test_a_server_that_keeps_breaking_off_is_given_up_and_the_rest_kept(
    client: Client, moody: Any, into: Path, pauses: list[float]
) -> None:
    moody.cut_after = [1000, *[0] * 20]

    with pytest.raises(ServiceProblem) as caught:
        fetch(client.transport, URL, into)

    assert caught.value.slug == "unreachable"
    assert not into.exists()
    assert into.with_name(into.name + ".part").stat().st_size == 1000
    assert len(pauses) < 10


def test_a_missing_file_leaves_nothing(client: Client, into: Path) -> None:
    with pytest.raises(ServiceProblem) as caught:
        fetch(client.transport, "/nothing", into)

    assert (caught.value.status, caught.value.slug) == (404, "not-found")
    assert caught.value.fields == {"kind": "file"}
    assert list(into.parent.iterdir()) == []

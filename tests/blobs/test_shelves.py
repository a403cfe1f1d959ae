"""Where the cache keeps blobs: bounded, verified, and shared by processes that may die."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import errors
from service.blobs.shelves import USED_EVERY_S, FolderShelf, MemoryShelf
from service.names import Digest, digest_of

SIZE = 1000
LIMIT = 3 * SIZE


def content(number: int, size: int = SIZE) -> bytes:
    return bytes([number]) * size


def put(shelf: FolderShelf | MemoryShelf, number: int, size: int = SIZE) -> Digest:
    digest = digest_of(content(number, size))
    shelf.fill(digest, size, [content(number, size)])
    return digest


def held(shelf: FolderShelf | MemoryShelf, *digests: Digest) -> list[bool]:
    return [shelf.open(digest) is not None for digest in digests]


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]


@pytest.fixture
def shelf(tmp_path: Path) -> FolderShelf:
    return FolderShelf(tmp_path, LIMIT, reserve_bytes=0)


@pytest.mark.parametrize("kind", [FolderShelf, MemoryShelf])
def test_what_is_put_is_read(tmp_path: Path, kind: type[FolderShelf | MemoryShelf]) -> None:
    shelf = FolderShelf(tmp_path, LIMIT) if kind is FolderShelf else MemoryShelf(LIMIT)
    digest = put(shelf, 7)

    reader = shelf.open(digest)

    assert reader is not None
    with reader:
        assert (reader.read(0, 4), reader.size_bytes) == (content(7)[:4], SIZE)
        assert (reader.fileno() is not None) == (kind is FolderShelf)
        with pytest.raises(errors.DamagedBlob):
            reader.read(SIZE - 1, SIZE + 1)
    assert shelf.open(digest_of(b"other")) is None


def test_what_was_used_least_recently_is_pushed_out(shelf: FolderShelf, tmp_path: Path) -> None:
    digests = [put(shelf, number) for number in range(3)]
    for path in files(tmp_path):
        os.utime(path, times=(0, time.time() - 2 * USED_EVERY_S))
    first = shelf.open(digests[0])  # makes it the one used last

    digests.append(put(shelf, 3, 2 * SIZE))

    assert first is not None
    assert held(shelf, *digests) == [True, False, False, True]
    first.close()


def test_what_is_pushed_out_stays_readable_to_who_has_it_open(shelf: FolderShelf) -> None:
    reader = shelf.open(put(shelf, 1))

    put(shelf, 2, LIMIT)

    assert reader is not None
    with reader:
        assert reader.read(0, SIZE) == content(1)


def test_what_is_too_large_pushes_nothing_out(shelf: FolderShelf) -> None:
    digest = put(shelf, 1)

    large = put(shelf, 2, LIMIT + 1)

    assert held(shelf, digest, large) == [True, False]


@pytest.mark.parametrize("kind", [FolderShelf, MemoryShelf])
def test_what_does_not_hash_to_its_name_is_not_kept(
    tmp_path: Path, kind: type[FolderShelf | MemoryShelf]
) -> None:
    shelf = FolderShelf(tmp_path, LIMIT) if kind is FolderShelf else MemoryShelf(LIMIT)

    with pytest.raises(errors.DigestMismatch):
        shelf.fill(digest_of(content(1)), SIZE, [content(2)])

    assert shelf.open(digest_of(content(1))) is None
    assert files(tmp_path) == []


def test_a_fetch_that_breaks_off_leaves_nothing(shelf: FolderShelf, tmp_path: Path) -> None:
    def breaking() -> Iterator[bytes]:
        yield content(1)[:10]
        raise errors.StoreUnavailable("gone")

    with pytest.raises(errors.StoreUnavailable):
        shelf.fill(digest_of(content(1)), SIZE, breaking())

    assert files(tmp_path) == []
    assert held(shelf, put(shelf, 1)) == [True]


_FETCHES = """
import sys, time
from pathlib import Path
from service.blobs.shelves import FolderShelf
from service.names import digest_of

content = b"x" * 1000

def slowly():
    print("fetching", flush=True)
    sys.stdin.readline()
    yield content

shelf = FolderShelf(Path(sys.argv[1]), int(sys.argv[2]), reserve_bytes=0)
print(shelf.fill(digest_of(content), 1000, slowly()), flush=True)
"""


def fetching(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _FETCHES, str(folder), str(LIMIT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_of_several_processes_one_fetches_and_its_room_counts(
    shelf: FolderShelf, tmp_path: Path
) -> None:
    with fetching(tmp_path) as first:
        assert line(first) == "fetching"
        with fetching(tmp_path) as second:
            assert line(second) == "False"
        too_large = put(shelf, 1, LIMIT - SIZE + 1)
        fits = put(shelf, 2, LIMIT - SIZE)
        assert first.stdin is not None
        first.stdin.write("go on\n")
        first.stdin.flush()
        assert line(first) == "True"

    assert held(shelf, too_large, fits, digest_of(b"x" * SIZE)) == [False, True, True]


def test_a_process_that_is_killed_holds_no_room(shelf: FolderShelf, tmp_path: Path) -> None:
    with fetching(tmp_path) as process:
        assert line(process) == "fetching"
        process.kill()

    digest = put(shelf, 1, LIMIT)

    assert held(shelf, digest) == [True]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60))
def test_memory_holds_what_was_used_last(steps: list[tuple[bool, int]]) -> None:
    shelf = MemoryShelf(LIMIT)
    used: list[int] = []

    for is_put, number in steps:
        if is_put:
            put(shelf, number)
        if shelf.open(digest_of(content(number))) is not None:
            used = [*(each for each in used if each != number), number][-3:]

    held_now = {n for n in range(10) if digest_of(content(n)) in shelf._blobs}
    assert held_now == set(used)

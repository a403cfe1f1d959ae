"""Hot blobs near the process: fetched once, in the background, while streams read the store."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service import errors
from service.blobs.cache import HOT_BYTES, SMALL_BYTES, Cache
from service.blobs.folder import FolderStore
from service.blobs.shelves import FolderShelf, MemoryShelf
from service.blobs.store import MIB
from service.names import Digest, digest_of

SMALL = bytes(range(256)) * 1000
LARGE = bytes(range(256)) * ((SMALL_BYTES + MIB) // 256)


class Counting(FolderStore):
    """A store that counts how often a blob was streamed, and that may be slow."""

    streamed = 0
    pause_s = 0.0

    def stream(self, digest: Digest, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        self.streamed += 1
        for chunk in super().stream(digest, start, end):
            time.sleep(self.pause_s)
            yield chunk


@pytest.fixture
def behind(tmp_path: Path) -> Counting:
    return Counting(tmp_path / "store", reserve_bytes=0)


@pytest.fixture
def reported() -> list[Digest]:
    """The blobs that the cache found damaged."""
    return []


@pytest.fixture
def cache(behind: Counting, reported: list[Digest], tmp_path: Path) -> Iterator[Cache]:
    shelf = FolderShelf(tmp_path / "cache", 4 * SMALL_BYTES, reserve_bytes=0)
    with closing(Cache(behind, MemoryShelf(SMALL_BYTES), shelf, reported.append)) as made:
        yield made


def store(into: FolderStore, content: bytes) -> Digest:
    digest = digest_of(content)
    with into.writer(digest, len(content)) as writer:
        writer.write(content)
        writer.commit()
    return digest


def read(cache: Cache, digest: Digest, size_bytes: int) -> bytes:
    with cache.open(digest) as reader:
        return b"".join(
            reader.read(at, min(size_bytes, at + MIB)) for at in range(0, size_bytes, MIB)
        )


def nearby(cache: Cache, digest: Digest) -> bool:
    found = cache._near(digest)
    if found is not None:
        found.close()
    return found is not None


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_what_was_read_once_is_near_the_next_time(
    cache: Cache, behind: Counting, content: bytes
) -> None:
    digest = store(behind, content)

    first = [read(cache, digest, len(content)) for _ in range(2)]
    wait_until(lambda: nearby(cache, digest))
    behind.delete(digest)
    second = read(cache, digest, len(content))

    assert first == [content, content]
    assert second == content
    assert behind.streamed == 1


def test_a_large_blob_has_a_descriptor_once_it_is_near(cache: Cache, behind: Counting) -> None:
    digest = store(behind, LARGE)
    read(cache, digest, len(LARGE))
    wait_until(lambda: nearby(cache, digest))

    with cache.open(digest) as reader:
        assert reader.fileno() is not None


def test_a_blob_of_which_only_the_header_is_read_is_not_fetched(
    cache: Cache, behind: Counting
) -> None:
    digest = store(behind, LARGE)

    for _ in range(5):
        with cache.open(digest) as reader:
            reader.read(0, 100_000)

    assert HOT_BYTES > 5 * 100_000
    assert behind.streamed == 0


def test_a_damaged_blob_is_never_kept_and_is_reported(
    cache: Cache, behind: Counting, reported: list[Digest]
) -> None:
    digest = store(behind, SMALL)
    path = behind.local_path(digest)
    assert path is not None
    path.write_bytes(SMALL[::-1])

    for _ in range(3):
        read(cache, digest, len(SMALL))
        wait_until(lambda: reported == [digest])

    assert not nearby(cache, digest)
    assert behind.streamed == 1


def test_a_blob_that_nobody_has_is_told(cache: Cache) -> None:
    with pytest.raises(errors.BlobNotFound):
        cache.open(digest_of(b"nothing"))


def test_closing_gives_up_what_is_under_way(behind: Counting, tmp_path: Path) -> None:
    behind.pause_s = 0.05
    digest = store(behind, LARGE)
    shelf = FolderShelf(tmp_path / "cache", 4 * SMALL_BYTES, reserve_bytes=0)
    cache = Cache(behind, MemoryShelf(SMALL_BYTES), shelf, lambda _: None)
    read(cache, digest, len(LARGE))
    wait_until(lambda: behind.streamed == 1)

    began = time.monotonic()
    cache.close()

    assert time.monotonic() - began < 2
    assert not nearby(cache, digest)
    assert list((tmp_path / "cache").rglob("*.part")) == []

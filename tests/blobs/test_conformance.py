"""What every blob store must do; each test runs on each store."""

import concurrent.futures
import contextlib
import random
from pathlib import Path

import pytest

from service import errors
from service.blobs.store import MIB, BlobStore
from service.names import Digest, digest_of

ABSENT = digest_of(b"never stored")
LARGE = random.Random(7).randbytes(35 * MIB + 11)  # noqa: S311  # three parts in S3


def put(store: BlobStore, content: bytes) -> Digest:
    digest = digest_of(content)
    with store.writer(digest, len(content)) as writer:
        writer.write(content)
        writer.commit()
    return digest


def test_what_is_written_is_read_back(store: BlobStore) -> None:
    for content in (b"", b"a", b"hello" * 1000):
        digest = put(store, content)

        assert store.stat(digest) == len(content)
        assert b"".join(store.stream(digest)) == content
        assert store.read(digest, 0, len(content)) == content


def test_a_large_blob_is_read_back_whole_and_by_ranges(store: BlobStore) -> None:
    digest = digest_of(LARGE)
    with store.writer(digest) as writer:
        for at in range(0, len(LARGE), 3 * MIB + 5):
            writer.write(memoryview(LARGE)[at : at + 3 * MIB + 5])
            assert store.stat(digest) is None
        writer.commit()

    chunks = list(store.stream(digest))
    assert max(map(len, chunks)) <= MIB
    assert b"".join(chunks) == LARGE
    ranges = [(0, 1), (16 * MIB - 1, 16 * MIB + 1), (5, 9 * MIB), (len(LARGE) - 1, len(LARGE))]
    for start, end in ranges:
        assert store.read(digest, start, end) == LARGE[start:end]
        assert b"".join(store.stream(digest, start, end)) == LARGE[start:end]


def test_random_ranges_of_an_open_blob_equal_slices(store: BlobStore) -> None:
    content = LARGE[: 2 * MIB]
    digest = put(store, content)
    chance = random.Random(1)  # noqa: S311

    with store.open(digest) as reader:
        for _ in range(20):
            start, end = sorted(chance.choices(range(len(content) + 1), k=2))

            assert reader.read(start, end) == content[start:end]


def test_a_blob_is_invisible_until_it_is_committed(store: BlobStore) -> None:
    content = b"x" * 100
    digest = digest_of(content)

    with store.writer(digest, 100) as writer:
        writer.write(content)
        before = store.stat(digest), list(store.digests())
        writer.commit()

    assert before == (None, [])
    assert list(store.digests()) == [(digest, 100)]


@pytest.mark.parametrize("size", [100, 17 * MIB])
def test_bytes_of_another_digest_leave_nothing(store: BlobStore, size: int) -> None:
    with store.writer(ABSENT, size) as writer:
        writer.write(bytes(size))
        with pytest.raises(errors.DigestMismatch) as caught:
            writer.commit()

    assert caught.value.expected == ABSENT
    assert caught.value.actual == digest_of(bytes(size))
    assert store.stat(ABSENT) is None
    assert list(store.digests()) == []
    assert store.sweep(0) == 0


def test_a_body_cut_off_leaves_nothing(store: BlobStore) -> None:
    with store.writer(ABSENT, 10) as writer:
        writer.write(b"1234")
        with pytest.raises(errors.BodyCutOff) as caught:
            writer.commit()

    assert (caught.value.expected_bytes, caught.value.received_bytes) == (10, 4)
    assert list(store.digests()) == []


def test_a_body_longer_than_announced_is_refused(store: BlobStore) -> None:
    with store.writer(ABSENT, 10) as writer, pytest.raises(errors.BodyTooLong):
        writer.write(b"12345678901")

    assert list(store.digests()) == []


def test_an_error_in_the_block_leaves_nothing(store: BlobStore) -> None:
    content = LARGE[: 17 * MIB]

    with (
        contextlib.suppress(ConnectionResetError),
        store.writer(digest_of(content), len(content)) as writer,
    ):
        writer.write(content)
        raise ConnectionResetError

    assert list(store.digests()) == []
    assert store.sweep(0) == 0


def test_storing_a_blob_twice_is_fine(store: BlobStore) -> None:
    first = put(store, b"twice")
    second = put(store, b"twice")

    assert first == second
    assert list(store.digests()) == [(first, 5)]


def test_many_writers_of_one_blob_all_succeed(store: BlobStore) -> None:
    content = LARGE[:MIB]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(lambda _: put(store, content), range(8)))

    assert digests == {digest_of(content)}
    assert b"".join(store.stream(digest_of(content))) == content


def test_a_file_is_stored_by_copy(store: BlobStore, tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    path.write_bytes(LARGE[:100_000])

    store.put_file(digest_of(LARGE[:100_000]), path)
    with pytest.raises(errors.DigestMismatch):
        store.put_file(ABSENT, path)

    assert path.exists()
    assert list(store.digests()) == [(digest_of(LARGE[:100_000]), 100_000)]


def test_a_deleted_blob_is_gone(store: BlobStore) -> None:
    digest = put(store, b"short-lived")
    other = put(store, b"kept")

    store.delete(digest)
    store.delete(digest)

    assert store.stat(digest) is None
    assert store.local_path(digest) is None
    assert list(store.digests()) == [(other, 4)]


def test_a_blob_that_is_not_stored_is_named(store: BlobStore) -> None:
    for read in (
        lambda: store.read(ABSENT, 0, 1),
        lambda: store.read(ABSENT, 0, 0),
        lambda: store.open(ABSENT),
        lambda: list(store.stream(ABSENT)),
        lambda: list(store.stream(ABSENT, 0, 5)),
    ):
        with pytest.raises(errors.BlobNotFound) as caught:
            read()

        assert caught.value.digest == ABSENT
    assert store.stat(ABSENT) is None


@pytest.mark.parametrize(("start", "end"), [(0, 11), (5, 20), (10, 11), (50, 60)])
def test_reading_past_the_end_tells_of_damage(store: BlobStore, start: int, end: int) -> None:
    digest = put(store, b"0123456789")

    with pytest.raises(errors.DamagedBlob):
        store.read(digest, start, end)


def test_all_blobs_are_listed_with_their_sizes(store: BlobStore) -> None:
    expected = {(put(store, b"n" * size), size) for size in range(30)}

    assert set(store.digests()) == expected


def test_a_store_that_is_well_says_so_and_where_it_is(store: BlobStore) -> None:
    store.check()

    assert store.describe().startswith(("file:///", "s3://patchbay/"))


def test_a_file_that_was_taken_outlives_its_first_name(store: BlobStore, tmp_path: Path) -> None:
    path, digest = tmp_path / "made", digest_of(LARGE[:100_000])
    path.write_bytes(LARGE[:100_000])

    store.take_file(digest, path)
    path.unlink()

    assert store.read(digest, 0, 100_000) == LARGE[:100_000]
    assert list(store.digests()) == [(digest, 100_000)]

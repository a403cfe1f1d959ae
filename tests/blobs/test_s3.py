"""What holds for S3 alone: a server that dies, that lacks the bucket, that refuses the keys."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service import errors
from service.blobs.s3 import PART_BYTES
from service.blobs.store import BlobStore
from service.names import digest_of
from tests.seaweed import S3Address, Seaweed

Open = Callable[[S3Address], BlobStore]


@pytest.fixture
def seaweed(tmp_path: Path) -> Iterator[Seaweed]:
    server = Seaweed(tmp_path)
    server.start()
    yield server
    server.stop()


def test_a_server_killed_during_an_upload_leaves_nothing_and_is_well_again_after(
    seaweed: Seaweed, open_s3: Open
) -> None:
    store = open_s3(seaweed.address)
    content = random.Random(3).randbytes(3 * PART_BYTES)  # noqa: S311
    digest = digest_of(content)
    kept = digest_of(b"kept")
    with store.writer(kept) as writer:
        writer.write(b"kept")
        writer.commit()

    with store.writer(digest) as writer:
        writer.write(content[: 2 * PART_BYTES])
        seaweed.kill()
        with pytest.raises(errors.StoreUnavailable):
            writer.write(content[2 * PART_BYTES :])
    for use in (store.check, lambda: store.stat(kept), lambda: store.read(kept, 0, 4)):
        with pytest.raises(errors.StoreUnavailable) as caught:
            use()
        assert seaweed.address.endpoint_url not in str(caught.value)
    seaweed.start()

    store.check()
    assert list(store.digests()) == [(kept, 4)]
    assert store.sweep(0) == 1
    store.put_file(digest, _file(seaweed.folder, content))
    assert b"".join(store.stream(digest)) == content


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "content"
    path.write_bytes(content)
    return path


def test_a_missing_bucket_is_unavailable_not_empty(s3: S3Address, open_s3: Open) -> None:
    store = open_s3(s3._replace(bucket="elsewhere"))

    for use in (
        store.check,
        lambda: store.stat(digest_of(b"")),
        lambda: store.read(digest_of(b""), 0, 1),
        lambda: list(store.digests()),
    ):
        with pytest.raises(errors.StoreUnavailable, match=r"bucket|Bucket"):
            use()


def test_keys_that_are_refused_make_the_store_unavailable(s3: S3Address, open_s3: Open) -> None:
    store = open_s3(s3._replace(secret_key="wrong"))  # noqa: S106

    with pytest.raises(errors.StoreUnavailable, match="403") as caught:
        store.check()

    assert "wrong" not in str(caught.value)


def test_a_prefix_keeps_two_stores_in_one_bucket_apart(s3: S3Address, open_s3: Open) -> None:
    one, other = open_s3(s3), open_s3(s3)
    content = b"of the first"

    with one.writer(digest_of(content)) as writer:
        writer.write(content)
        writer.commit()

    assert list(other.digests()) == []
    assert other.stat(digest_of(content)) is None

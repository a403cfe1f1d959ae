"""What holds for S3 alone: a server that dies, that lacks the bucket, that refuses the keys."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from service import errors
from service.blobs import bucket, staging
from service.blobs.bucket import Bucket, connect
from service.blobs.opening import Presigning, open_store
from service.blobs.staging import Staged
from service.blobs.store import MIB, BlobStore
from service.names import Digest, digest_of
from service.worker.kinds.uploads import Ingest, ingest
from tests.seaweed import S3Address, Seaweed

PART_BYTES = 5 * MIB  # the least that S3 takes

Open = Callable[[S3Address], BlobStore]


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A server to be killed; each test leaves it running."""
    server = Seaweed(tmp_path_factory.mktemp("killed"))
    server.start()
    yield server
    server.stop()


def test_a_server_killed_during_an_upload_leaves_nothing_and_is_well_again_after(
    seaweed: Seaweed, open_s3: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "PART_BYTES", PART_BYTES)
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
    store.put_file(digest, _file(tmp_path, content))
    assert b"".join(store.stream(digest)) == content


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "content"
    path.write_bytes(content)
    return path


def test_a_check_goes_on_where_it_was_once_the_server_is_back(
    seaweed: Seaweed, open_s3: Open
) -> None:
    store = open_s3(seaweed.address)
    content = random.Random(6).randbytes(9 * MIB)  # noqa: S311
    staged = store.staging.begin("1" * 32, digest_of(content), len(content))
    with store.staging.part_writer(staged, 1) as writer:
        writer.write(content)
        writer.commit()
    seen: list[float] = []

    def told(fraction: float, message: str) -> None:
        seen.append(fraction)
        if len(seen) == 1:
            seaweed.kill()
        elif message.startswith("waiting"):
            seaweed.start()

    ingest(Ingest(staged, is_known=False), store, told)

    assert len(set(seen)) < len(seen)  # it waited
    assert seen == sorted(seen)  # and began nothing anew
    assert b"".join(store.stream(digest_of(content))) == content


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


def test_a_damaged_blob_is_replaced_only_where_asked(s3: S3Address, open_s3: Open) -> None:
    store = open_s3(s3)
    content = b"sound bytes"
    damaged = _damaged(store, s3, content)

    with store.writer(damaged, len(content)) as writer:
        writer.write(content)
        writer.commit()
    kept = store.read(damaged, 0, len(content))
    with store.writer(damaged, len(content), replace=True) as writer:
        writer.write(content)
        writer.commit()

    assert kept == content[::-1]
    assert store.read(damaged, 0, len(content)) == content


def test_a_replacement_that_comes_to_nothing_is_not_taken_for_done(
    s3: S3Address, open_s3: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "PART_BYTES", PART_BYTES)
    store = open_s3(s3)
    content = random.Random(7).randbytes(PART_BYTES + 9)  # noqa: S311
    damaged = _damaged(store, s3, content)
    join = Bucket.join

    def aborted_before(*args: Any, **options: Any) -> None:
        assert store.sweep(0) == 1  # as if it had been under way for a day
        join(*args, **options)

    with store.writer(damaged, len(content), replace=True) as writer:
        writer.write(content)
        with monkeypatch.context() as patch:
            patch.setattr(Bucket, "join", aborted_before)
            with pytest.raises(errors.StoreUnavailable):
                writer.commit()
    kept = store.read(damaged, 0, 5)
    with store.writer(damaged, len(content), replace=True) as writer:
        writer.write(content)
        writer.commit()

    assert kept == content[::-1][:5]
    assert b"".join(store.stream(damaged)) == content


def _damaged(store: BlobStore, s3: S3Address, content: bytes) -> Digest:
    """A blob whose object was overwritten with other bytes of the same size."""
    digest = digest_of(content)
    with store.writer(digest, len(content)) as writer:
        writer.write(content)
        writer.commit()
    name = digest.removeprefix("sha256:")
    key = f"{urlsplit(store.describe()).path[1:]}/sha256/{name[:2]}/{name}"
    connect(s3.endpoint_url).put_object(Bucket=s3.bucket, Key=key, Body=content[::-1])
    return digest


def test_a_large_copy_within_the_store_is_made_in_pieces(
    s3: S3Address, open_s3: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "COPY_BYTES", 5 * MIB)
    store = open_s3(s3)
    content = random.Random(5).randbytes(11 * MIB)  # noqa: S311
    staged = store.staging.begin("0" * 32, digest_of(content), len(content))
    with store.staging.part_writer(staged, 1) as writer:
        writer.write(content)
        writer.commit()

    store.staging.seal(staged)
    store.staging.publish(staged)

    assert b"".join(store.stream(digest_of(content))) == content
    assert store.sweep(0, staged_older_than_s=0) == 0


def test_a_signed_url_gives_a_blob_by_ranges_under_a_name(s3: S3Address, open_s3: Open) -> None:
    store = open_s3(s3)
    content = b"0123456789"
    with store.writer(digest_of(content)) as writer:
        writer.write(content)
        writer.commit()

    url = store.presign_get(
        digest_of(content), expires_s=60, filename='a "b".safetensors', content_type="text/x"
    )
    assert url is not None
    part = httpx2.get(url, headers={"Range": "bytes=2-4"})
    tampered = httpx2.get(url.replace("X-Amz-Expires=60", "X-Amz-Expires=600"))

    assert (part.status_code, part.content) == (206, b"234")
    assert part.headers["content-disposition"] == 'attachment; filename="a \\"b\\".safetensors"'
    assert part.headers["content-type"] == "text/x"
    assert part.headers["content-encoding"] == "identity"
    assert tampered.status_code == 403


def test_without_presigning_all_bytes_pass_through_the_service(
    s3: S3Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    store = open_store(f"s3://{s3.bucket}", endpoint_url=s3.endpoint_url)
    staged = Staged("0", digest_of(b""), 1, 1, "token")

    assert store.presign_get(digest_of(b""), expires_s=60) is None
    assert store.staging.part_url(staged, 1, 60) is None


def test_signed_urls_lead_to_the_endpoint_that_clients_reach(
    s3: S3Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    store = open_store(
        f"s3://{s3.bucket}",
        endpoint_url=s3.endpoint_url,
        presigning=Presigning("https://blobs.example:9000"),
    )

    url = store.presign_get(digest_of(b""), expires_s=60)

    assert str(url).startswith(f"https://blobs.example:9000/{s3.bucket}/sha256/")

"""What every store must do with uploads in parts; each test runs on each store."""

import base64
import hashlib
import random
import uuid
from collections.abc import Callable

import httpx2
import pytest

from service import errors
from service.blobs import staging
from service.blobs.staging import MAX_PARTS, Staged, part_bytes
from service.blobs.store import MIB, BlobStore, BlobWriter
from service.names import Digest, digest_of

SMALL_PART = 5 * MIB  # the least that S3 takes
CONTENT = random.Random(11).randbytes(SMALL_PART + 1234)  # noqa: S311  # two parts
DIGEST = digest_of(CONTENT)

Send = Callable[[Staged, int, bytes], None]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "PART_BYTES", SMALL_PART)


@pytest.fixture
def send(store: BlobStore) -> Send:
    """Sends a part as a client does: straight to the store where that has an address for it."""

    def sent(staged: Staged, number: int, content: bytes) -> None:
        url = store.staging.part_url(staged, number, 60)
        if url is None:
            through(store, staged, number, content)
            return
        answer = httpx2.put(url, content=content, headers={"Content-MD5": md5(content)})
        assert answer.status_code == 200, answer.text

    return sent


def through(
    store: BlobStore, staged: Staged, number: int, content: bytes, digest: Digest | None = None
) -> None:
    finish(store.staging.part_writer(staged, number, digest), content)


def finish(writer: BlobWriter, content: bytes) -> None:
    with writer:
        for at in range(0, len(content), MIB):
            writer.write(content[at : at + MIB])
        writer.commit()


def begun(store: BlobStore, content: bytes = CONTENT, digest: Digest = DIGEST) -> Staged:
    return store.staging.begin(uuid.uuid4().hex, digest, len(content))


def part(staged: Staged, number: int, content: bytes = CONTENT) -> bytes:
    start, end = staged.part_range(number)
    return content[start:end]


def md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def test_parts_in_any_order_become_a_blob(store: BlobStore, send: Send) -> None:
    staged = begun(store)
    send(staged, 2, part(staged, 2))
    before = store.staging.arrived(staged)
    through(store, staged, 1, part(staged, 1), digest_of(part(staged, 1)))

    store.staging.seal(staged)
    with store.staging.open(staged) as reader:
        read = b"".join(reader.read(at, min(at + MIB, len(CONTENT))) for at in _steps())
    hidden = store.stat(DIGEST), list(store.digests())
    store.staging.publish(staged)

    assert before == {2}
    assert read == CONTENT
    assert hidden == (None, [])
    assert b"".join(store.stream(DIGEST)) == CONTENT
    assert list(store.digests()) == [(DIGEST, len(CONTENT))]
    assert store.sweep(0, staged_older_than_s=0) == 0


def _steps() -> range:
    return range(0, len(CONTENT), MIB)


def test_a_part_sent_twice_counts_once(store: BlobStore, send: Send) -> None:
    staged = begun(store)
    for number in (1, 2, 2):
        send(staged, number, part(staged, number))

    arrived = store.staging.arrived(staged)
    store.staging.seal(staged)
    store.staging.seal(staged)
    store.staging.publish(staged)

    assert arrived == {1, 2}
    assert b"".join(store.stream(DIGEST)) == CONTENT


def test_what_is_not_complete_is_not_sealed(store: BlobStore, send: Send) -> None:
    staged = begun(store)
    send(staged, 2, part(staged, 2))

    with pytest.raises(errors.PartsMissing) as caught:
        store.staging.seal(staged)

    assert (caught.value.count, caught.value.missing) == (1, [1])
    assert store.staging.arrived(staged) == {2}


def test_no_part_changes_once_sealed(store: BlobStore, send: Send) -> None:
    staged = begun(store)
    late = store.staging.part_writer(staged, 2)
    for number in (1, 2):
        send(staged, number, part(staged, number))
    store.staging.seal(staged)

    with pytest.raises(errors.UploadSealed):
        finish(late, bytes(1234))
    with pytest.raises(errors.UploadSealed):
        through(store, staged, 1, bytes(SMALL_PART))
    if url := store.staging.part_url(staged, 1, 60):
        assert httpx2.put(url, content=bytes(SMALL_PART)).status_code == 404

    with store.staging.open(staged) as reader:
        assert reader.read(0, len(CONTENT)) == CONTENT


def test_a_part_of_another_size_or_content_does_not_count(store: BlobStore) -> None:
    staged = begun(store)
    first = part(staged, 1)

    with pytest.raises(errors.BodyTooLong):
        through(store, staged, 1, first + b"x")
    with pytest.raises(errors.BodyCutOff):
        through(store, staged, 1, first[:-1])
    with pytest.raises(errors.DigestMismatch):
        through(store, staged, 1, first[:-1] + b"x", digest_of(first))
    if url := store.staging.part_url(staged, 1, 60):
        too_short = httpx2.put(url, content=first[:-1])
        too_long = httpx2.put(url, content=first + b"x")
        broken = httpx2.put(url, content=first, headers={"Content-MD5": md5(b"another")})
        assert (too_short.status_code, too_long.status_code) == (403, 403)
        assert (broken.status_code, "BadDigest" in broken.text) == (400, True)

    assert store.staging.arrived(staged) == frozenset()


@pytest.mark.parametrize("number", [0, -1, 3, 10**9])
def test_a_part_that_there_is_not_is_refused(store: BlobStore, number: int) -> None:
    staged = begun(store)

    with pytest.raises(errors.ThingNotFound):
        store.staging.part_url(staged, number, 60)
    with pytest.raises(errors.ThingNotFound):
        store.staging.part_writer(staged, number)


def test_what_was_discarded_is_over(store: BlobStore, send: Send) -> None:
    half, whole = begun(store), begun(store)
    send(half, 1, part(half, 1))
    for number in (1, 2):
        send(whole, number, part(whole, number))
    store.staging.seal(whole)

    for staged in (half, whole):
        store.staging.discard(staged)
        store.staging.discard(staged)

    for staged in (half, whole):
        for use in (
            lambda staged=staged: store.staging.arrived(staged),
            lambda staged=staged: store.staging.seal(staged),
            lambda staged=staged: store.staging.open(staged),
            lambda staged=staged: store.staging.publish(staged),
            lambda staged=staged: through(store, staged, 1, part(staged, 1)),
        ):
            with pytest.raises(errors.UploadEnded):
                use()
    assert store.sweep(0, staged_older_than_s=0) == 0


def test_abandoned_uploads_are_swept_and_fresh_ones_stay(store: BlobStore, send: Send) -> None:
    half, whole = begun(store), begun(store)
    send(half, 1, part(half, 1))
    for number in (1, 2):
        send(whole, number, part(whole, number))
    store.staging.seal(whole)

    fresh = store.sweep(0)
    stayed = store.staging.arrived(half)
    swept = store.sweep(staged_older_than_s=-5)

    assert (fresh, set(stayed), swept) == (0, {1}, 2)
    with pytest.raises(errors.UploadEnded):
        store.staging.arrived(half)


def test_publishing_replaces_what_is_there(store: BlobStore, send: Send) -> None:
    with store.writer(DIGEST, len(CONTENT)) as writer:
        writer.write(CONTENT)
        writer.commit()
    staged = begun(store)
    for number in (1, 2):
        send(staged, number, part(staged, number))

    store.staging.seal(staged)
    store.staging.publish(staged)

    assert b"".join(store.stream(DIGEST)) == CONTENT


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [(1, 16 * MIB), (16 * MIB * MAX_PARTS, 16 * MIB), (16 * MIB * MAX_PARTS + 1, 16 * MIB + 1)],
)
def test_parts_grow_only_where_there_would_be_too_many(
    monkeypatch: pytest.MonkeyPatch, size_bytes: int, expected: int
) -> None:
    monkeypatch.undo()

    staged = Staged("", DIGEST, size_bytes, part_bytes(size_bytes), "")

    assert staged.part_bytes == expected
    assert staged.part_count <= MAX_PARTS
    sizes = {staged.part_range(n) for n in (1, staged.part_count)}
    assert {0, size_bytes} <= {at for both in sizes for at in both}

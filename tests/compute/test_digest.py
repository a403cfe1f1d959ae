import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import errors
from service.compute import digest
from service.layout.header import Read
from service.layout.splice import BlobRange, Literal, Plan, Segment
from service.names import Digest, digest_of

BLOB = hashlib.shake_128(b"blob").digest(3 * digest.CHUNK_BYTES + 5)
NAME = digest_of(BLOB)
SIZES = {NAME: len(BLOB)}


def open_read(name: Digest) -> Read:
    if name != NAME:
        raise errors.BlobNotFound(name)
    return lambda start, end: BLOB[start:end]


def ranges() -> st.SearchStrategy[Segment]:
    ends = st.tuples(st.integers(0, len(BLOB)), st.integers(0, len(BLOB))).map(sorted)
    cut: Callable[[list[int]], Segment] = lambda at: BlobRange(NAME, at[0], at[1])  # noqa: E731
    return ends.map(cut) | st.binary(min_size=1, max_size=40).map(Literal)


def content(segment: Segment) -> bytes:
    if isinstance(segment, Literal):
        return segment.content
    return BLOB[segment.start : segment.end]


@given(st.lists(ranges(), max_size=6))
def test_the_digest_is_that_of_the_bytes_that_clients_are_sent(segments: list[Segment]) -> None:
    kept = tuple(segment for segment in segments if segment.size_bytes)

    found = digest.digest_files({"a": Plan(kept, "tag")}, SIZES, open_read, lambda *_: None)

    assert found == {"a": digest_of(b"".join(map(content, kept)))}


def test_progress_runs_over_all_files_together() -> None:
    told: list[float] = []
    plan = Plan((BlobRange(NAME, 0, len(BLOB)),), "tag")

    digest.digest_files({"a": plan, "b": plan}, SIZES, open_read, lambda done, _: told.append(done))

    assert told == sorted(told)
    assert (told[0], told[-1] < 1) == (0.0, True)


def test_a_missing_blob_is_told_before_anything_is_hashed() -> None:
    plan = Plan((BlobRange(digest_of(b"other"), 0, 8),), "tag")

    with pytest.raises(errors.BlobNotFound):
        digest.digest_files({"a": plan}, SIZES, open_read, lambda *_: None)


@pytest.mark.parametrize("flipped", [0, 10, digest.CHUNK_BYTES, len(BLOB) - 1])
def test_a_blob_that_does_not_hash_to_its_name_is_told_though_no_client_is_sent_what_is_wrong(
    flipped: int,
) -> None:
    damaged = bytearray(BLOB)
    damaged[flipped] ^= 1
    plan = Plan((BlobRange(NAME, 5, 10), BlobRange(NAME, 20, 30)), "tag")

    def opened(_: Digest) -> Read:
        return lambda start, end: bytes(damaged[start:end])

    with pytest.raises(errors.DamagedBlob, match=NAME):
        digest.digest_files({"a": plan}, SIZES, opened, lambda *_: None)

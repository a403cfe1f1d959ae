"""Streams of codes: whole again, no larger than said, and only where they pay."""

import random
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.layout.deflate import MAX_RATIO, BadStream, deflated, inflated


@given(st.lists(st.sampled_from(b"\0\0\0\0\x01\x02\x09"), min_size=1, max_size=3000).map(bytes))
def test_what_was_deflated_inflates_to_the_same_and_is_shorter(packed: bytes) -> None:
    stream = deflated(packed)

    if stream is not None:
        assert len(stream) < len(packed) <= MAX_RATIO * len(stream)
        assert inflated(stream, len(packed)) == packed


def test_any_inflater_reads_a_stream() -> None:
    packed = bytes(random.Random(1).choices(range(20), k=70_000))  # noqa: S311  # a fixed sample

    stream = deflated(packed)

    assert stream is not None
    assert zlib.decompress(stream, wbits=-15) == packed


def test_noise_is_left_as_it_is() -> None:
    noise = random.Random(2).randbytes(200_000)  # noqa: S311  # a fixed sample

    assert deflated(noise) is None


@pytest.mark.parametrize("size_bytes", [1, 499, 501, 4000])
def test_a_stream_of_another_length_is_refused(size_bytes: int) -> None:
    stream = deflated(b"ab" * 250)
    assert stream is not None

    with pytest.raises(BadStream):
        inflated(stream, size_bytes)


@pytest.mark.parametrize("change", [lambda s: s[:-1], lambda s: s + b"\0", lambda s: b"\xff" + s])
def test_a_damaged_stream_is_refused(change: object) -> None:
    stream = deflated(b"ab" * 250)
    assert callable(change)

    with pytest.raises(BadStream):
        inflated(change(stream), 500)


def test_a_bomb_takes_no_more_memory_than_was_said() -> None:
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = coder.compress(bytes(200 * 2**20)) + coder.flush()

    tracemalloc.start()
    with pytest.raises(BadStream):
        inflated(bomb, 2**20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 4 * 2**20

"""Splice plans: byte for byte what the safetensors library reads and what a slice would give."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st

from service import errors
from service.layout.splice import (
    BlobRange,
    Literal,
    Plan,
    in_place,
    plan_patched,
    plan_plain,
    plan_undo,
)
from service.names import Digest, digest_of


def read(plan: Plan, blobs: dict[Digest, bytes], start: int = 0, end: int | None = None) -> bytes:
    parts = plan.cut(start, plan.size_bytes if end is None else end)
    return b"".join(
        part.content if isinstance(part, Literal) else blobs[part.digest][part.start : part.end]
        for part in parts
    )


def patched(pair: Any) -> Plan:
    return plan_patched(
        pair.base.digest, pair.base.header, pair.overlay.digest, pair.overlay.header
    )


def undo(pair: Any) -> Plan:
    return plan_undo(pair.base.digest, pair.base.header, pair.overlay.header)


def blobs_of(pair: Any) -> dict[Digest, bytes]:
    return {pair.base.digest: pair.base.content, pair.overlay.digest: pair.overlay.content}


@given(st.data())
def test_a_patched_file_is_the_base_with_the_overlays_tensors(
    pairs: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    pair = data.draw(pairs)

    whole = read(patched(pair), blobs_of(pair))

    changed = set(pair.overlay.header.names)
    loaded = dict(safetensors.deserialize(whole))  # type: ignore[no-untyped-call]
    assert whole[: pair.base.header.data_start] == pair.base.header.raw
    assert set(loaded) == set(pair.base.header.names)
    for name, tensor in loaded.items():
        source = pair.overlay if name in changed else pair.base
        assert bytes(tensor["data"]) == source.of(name)


@given(st.data())
def test_an_undo_holds_the_base_bytes_under_the_overlays_header(
    pairs: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    pair = data.draw(pairs)

    whole = read(undo(pair), blobs_of(pair))

    assert len(whole) == len(pair.overlay.content)
    assert whole.startswith(pair.overlay.header.raw)
    for tensor in pair.overlay.header.tensors:
        assert whole[tensor.start : tensor.end] == pair.base.of(tensor.name)


@given(st.data())
def test_any_cut_equals_that_slice_of_the_whole(
    pairs: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    pair = data.draw(pairs)
    plan = data.draw(st.sampled_from([patched, undo]))(pair)
    end = data.draw(st.integers(0, plan.size_bytes))
    start = data.draw(st.integers(0, end))

    whole = read(plan, blobs_of(pair))

    assert len(whole) == plan.size_bytes
    assert read(plan, blobs_of(pair), start, end) == whole[start:end]


@given(st.data())
def test_writing_in_place_and_undoing_gives_the_patched_file_and_the_base_again(
    pairs: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    pair = data.draw(pairs)
    file = bytearray(pair.base.content)
    undo_content = read(undo(pair), blobs_of(pair))
    moves = in_place(pair.base.header, pair.overlay.header)

    for content in (pair.overlay.content, undo_content):
        for move in moves:
            piece = content[move.overlay_start : move.overlay_start + move.length]
            file[move.base_start : move.base_start + move.length] = piece
        if content is pair.overlay.content:
            assert file == read(patched(pair), blobs_of(pair))

    assert file == pair.base.content


def test_neighbours_are_merged(make_file: Callable[..., Any]) -> None:
    names = [(name, "F32", (2,)) for name in "abcdef"]
    base = make_file(*names)
    overlay = make_file(*names[1:3], seed="overlay")

    plan = plan_patched(base.digest, base.header, overlay.digest, overlay.header)

    data, patch = base.header.data_start, overlay.header.data_start
    assert plan.segments == (
        BlobRange(base.digest, 0, data + 8),
        BlobRange(overlay.digest, patch, patch + 16),
        BlobRange(base.digest, data + 24, data + 48),
    )
    assert plan.digests == (base.digest, overlay.digest)
    assert [move.length for move in in_place(base.header, overlay.header)] == [16]


def test_entity_tags_follow_the_definition(make_file: Callable[..., Any]) -> None:
    base = make_file(("a", "F32", (2,)), ("b", "F32", (2,)))
    overlay = make_file(("b", "F32", (2,)), seed="overlay")

    plain = plan_plain(base.digest, len(base.content))
    spliced = plan_patched(base.digest, base.header, overlay.digest, overlay.header)
    undone = plan_undo(base.digest, base.header, overlay.header)

    both = base.digest + overlay.digest
    assert plain.etag == base.digest.removeprefix("sha256:")
    assert plain.sha256 == base.digest
    assert spliced.etag == "s1-" + hashlib.sha256(both.encode()).hexdigest()
    assert spliced.sha256 is None
    both = base.digest + digest_of(overlay.header.raw)
    assert undone.etag == "u1-" + hashlib.sha256(both.encode()).hexdigest()


def test_an_overlay_of_another_base_is_refused(make_file: Callable[..., Any]) -> None:
    base = make_file(("a", "F32", (2,)))
    other = make_file(("a", "F32", (3,)))

    with pytest.raises(errors.OverlayDoesNotFit):
        plan_patched(base.digest, base.header, other.digest, other.header)
    with pytest.raises(errors.OverlayDoesNotFit):
        plan_undo(base.digest, base.header, other.header)
    with pytest.raises(errors.OverlayDoesNotFit):
        in_place(base.header, other.header)


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 2), (0, 11)])
def test_a_cut_outside_the_file_is_a_mistake_of_the_caller(start: int, end: int) -> None:
    plan = plan_plain(digest_of(b"0123456789"), 10)

    with pytest.raises(ValueError, match="outside"):
        plan.cut(start, end)


def test_an_empty_blob_has_no_segments() -> None:
    plan = plan_plain(digest_of(b""), 0)

    assert plan.segments == ()
    assert plan.cut(0, 0) == []

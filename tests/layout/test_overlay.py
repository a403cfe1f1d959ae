"""Overlays: laid out from the base's header alone, written front to back."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from safetensors.torch import load

from service import errors
from service.layout.header import compose, parse
from service.layout.overlay import OverlayWriter, check_fits, overlay_header
from service.names import digest_of

BASE = compose([("b", "F32", (2, 2)), ("a", "F16", (3,)), ("n", "I64", ()), ("z", "F16", (1,))])


def test_an_overlay_keeps_the_order_of_the_base() -> None:
    header = overlay_header(BASE, {"z", "b", "a"})

    assert header.names == ("b", "a", "z")
    assert header.metadata == {}
    check_fits(BASE, header)


def test_an_overlay_of_a_tensor_that_the_base_lacks_is_refused() -> None:
    with pytest.raises(errors.ThingNotFound, match="'q'"):
        overlay_header(BASE, ["a", "q"])


def test_what_is_written_piece_by_piece_loads_in_the_library() -> None:
    header = overlay_header(BASE, ["b", "a"])
    out = io.BytesIO()

    writer = OverlayWriter(out, header)
    writer.write("b", b"\x00\x00\x80\x3f" * 3)
    writer.write("b", memoryview(b"\x00\x00\x00\x40"))
    writer.write("a", b"\x00\x3c" * 3)
    digest = writer.finish()

    tensors = load(out.getvalue())
    assert tensors["b"].tolist() == [[1, 1], [1, 2]]
    assert tensors["a"].tolist() == [1, 1, 1]
    assert digest == digest_of(out.getvalue())
    assert parse(out.getvalue(), len(out.getvalue())) == header


@pytest.mark.parametrize(
    "writes",
    [
        [("a", 6)],  # out of order
        [("b", 17)],  # too long
        [("b", 16), ("a", 5)],  # too short
        [("b", 15), ("a", 6)],
        [],
    ],
)
def test_a_tensor_out_of_place_is_a_mistake_of_the_caller(writes: list[tuple[str, int]]) -> None:
    writer = OverlayWriter(io.BytesIO(), overlay_header(BASE, ["b", "a"]))

    with pytest.raises(ValueError, match="bytes"):  # noqa: PT012  # which write fails is the point
        for name, size in writes:
            writer.write(name, bytes(size))
        writer.finish()


def test_an_empty_overlay_is_a_file(make_file: Callable[..., Any]) -> None:
    header = overlay_header(BASE, [])

    out = io.BytesIO()
    OverlayWriter(out, header).finish()

    assert load(out.getvalue()) == {}
    assert make_file().content == out.getvalue()


def test_a_misfit_is_named_tensor_by_tensor_up_to_ten() -> None:
    overlay = compose(
        [("a", "F32", (3,)), ("b", "F32", (4,)), *((f"x{n}", "U8", ()) for n in range(10))]
    )

    with pytest.raises(errors.OverlayDoesNotFit) as caught:
        check_fits(BASE, overlay, "model.safetensors")

    assert caught.value.reasons[:3] == [
        "tensor 'a' is F16 [3] in it, not F32 [3]",
        "tensor 'b' is F32 [2, 2] in it, not F32 [4]",
        "tensor 'x0' is not in it",
    ]
    assert len(caught.value.reasons) == 10
    assert caught.value.more == 2
    assert "model.safetensors" in str(caught.value)

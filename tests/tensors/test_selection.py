"""Which kernels are kept, and which requests are refused."""

from typing import Any

import pytest

from service import errors
from service.layout.codecs import Codec
from service.names import TensorAddress
from service.tensors import selection
from service.tensors.layers import Layer, Role
from service.tensors.selection import All, ByEnergy, First, Measured, Named, Quality


def _kernel(name: str, numel: int, energy: float, weight: float = 1.0) -> Measured:
    layer = Layer(TensorAddress("m.safetensors", name), (numel, 1), "F32", Role.KERNEL)
    return Measured(layer, energy, weight, 0.0, 0.0)


# By density c, a, b, d; d's weight is zero, so it has no relative energy.
KERNELS = [
    _kernel("a.weight", 10, 4.0),
    _kernel("b.weight", 1000, 3.0),
    _kernel("c.weight", 1, 3.0),
    _kernel("d.weight", 1, 9.0, weight=0.0),
    _kernel("e.weight", 1, 0.0),
]


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        (ByEnergy(0.3), "c"),
        (ByEnergy(0.31), "ac"),
        (ByEnergy(0.7), "ac"),
        (ByEnergy(0.85), "abc"),
        (ByEnergy(1.0), "abc"),
        (First(2), "ab"),
        (First(99), "abcde"),
        (Named(("[ab].*", "m.safetensors:c.weight")), "abc"),
        (All(), "abcde"),
    ],
)
def test_a_selection_keeps_kernels_in_forward_order(choice: selection.Selection, kept: str) -> None:
    chosen = selection.select(KERNELS, choice)

    assert [kernel.layer.name[0] for kernel in chosen] == list(kept)


def test_equal_densities_are_taken_by_name() -> None:
    twins = [_kernel("b.weight", 2, 1.0), _kernel("a.weight", 2, 1.0)]

    assert [k.layer.name for k in selection.select(twins, ByEnergy(0.5))] == ["a.weight"]


def test_a_glob_that_matches_nothing_is_named() -> None:
    with pytest.raises(errors.NothingToExtract, match="conv9"):
        selection.select(KERNELS, Named(("a.*", "conv9.*")))


def test_nothing_is_extracted_from_equal_models_or_equal_kernels() -> None:
    with pytest.raises(errors.NothingToExtract, match="differs"):
        selection.select([_kernel("a.weight", 4, 0.0)], All())
    with pytest.raises(errors.NothingToExtract, match="chosen"):
        selection.select(KERNELS, Named(("e.*",)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ByEnergy(0.85)),
        ({"energy": 0.5}, ByEnergy(0.5)),
        ({"energy": 1}, ByEnergy(1.0)),
        ({"first": 7}, First(7)),
        ({"names": ["conv*", "x"]}, Named(("conv*", "x"))),
        ("all", All()),
    ],
)
def test_layers_are_read_and_written(value: Any, expected: selection.Selection) -> None:
    read = selection.parse_layers(value)

    assert read == expected
    assert selection.parse_layers(selection.layers_json(read)) == expected


@pytest.mark.parametrize(
    "value",
    [
        *({"energy": share} for share in (0, -1, 1.01, True, "0.5", float("nan"), None)),
        *({"first": count} for count in (0, -1, True, 1.5, "7")),
        *({"names": names} for names in ([], "conv*", [1], [["a"]])),
        *({}, {"energy": 0.5, "first": 3}, "some", 3, [], {"last": 1}),
    ],
)
def test_layers_that_make_no_sense_are_refused(value: Any) -> None:
    with pytest.raises(errors.BadRequest, match="layers must be"):
        selection.parse_layers(value)


@pytest.mark.parametrize("quality", ["medium", "q2", "", "EXACT"])
def test_a_quality_that_does_not_exist_is_refused_naming_those_that_do(quality: str) -> None:
    with pytest.raises(errors.BadRequest, match="exact, high, standard, small, tiny"):
        selection.parse_quality(quality)


def test_a_projection_is_auto_or_none() -> None:
    assert selection.parse_projection("none") is selection.Projection.NONE
    with pytest.raises(errors.BadRequest, match="auto, none"):
        selection.parse_projection("origin")


def test_small_kernels_stay_at_eight_bits() -> None:
    for quality in (Quality.HIGH, Quality.STANDARD, Quality.SMALL, Quality.TINY):
        assert selection.kernel_grain(quality, 4096).codec is Codec.Q8
        assert selection.kernel_grain(quality, 4097).codec is not Codec.Q8
    assert selection.kernel_grain(Quality.EXACT, 1).codec is Codec.F32


def test_a_lower_quality_has_fewer_bits() -> None:
    bits = [selection.kernel_grain(quality, 4097).bits for quality in Quality]

    assert bits == sorted(set(bits), reverse=True)


def test_what_rides_along_has_sixteen_bits_or_all() -> None:
    assert selection.rider_codec(Quality.EXACT) is Codec.F32
    assert selection.rider_codec(Quality.STANDARD) is Codec.F16

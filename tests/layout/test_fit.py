"""Which tensors of a base a signature touches, and why it may not fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.layout import fit
from service.layout.codecs import Kind
from service.layout.fit import Place
from service.layout.header import Header, compose
from service.names import TensorAddress

SHAPE = (4, 2)


def _place(
    path: str, name: str, shape: tuple[int, ...] = SHAPE, kind: Kind = Kind.ADDITIVE
) -> Place:
    return Place(path, name, shape, kind)


def _file(*names: str, dtype: str = "F16", shape: tuple[int, ...] = SHAPE) -> Header:
    return compose([(name, dtype, shape) for name in names])


def test_an_address_is_taken_as_it_stands_where_the_base_has_it() -> None:
    base = {"unet/m": _file("w"), "vae/m": _file("w")}

    found = fit.resolve(base, [_place("vae/m", "w")])

    assert found == {TensorAddress("vae/m", "w"): TensorAddress("vae/m", "w")}


@pytest.mark.parametrize("path", ["model.safetensors", "m-00001-of-00003.safetensors"])
def test_another_cut_into_files_is_found_by_name(path: str) -> None:
    base = {"a-of-2": _file("one"), "b-of-2": _file("two")}

    assert fit.check(base, [_place(path, "one"), _place(path, "two")]) == []
    assert fit.touched(base, [[_place(path, "two")]]) == {"b-of-2": ["two"]}


def test_a_name_that_is_not_unique_is_not_guessed() -> None:
    base = {"unet/m": _file("w"), "vae/m": _file("w")}

    assert fit.resolve(base, [_place("model", "w")]) == {}
    assert fit.resolve({"m": _file("w")}, [_place("a", "w"), _place("b", "w")]) == {}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (_file("other"), "tensor 'p:w' is not in the base"),
        (_file("w", shape=(4, 3)), "tensor 'p:w' is 4x3 in the base, 4x2 in the patch"),
        (_file("w", shape=()), "tensor 'p:w' is a single number in the base, 4x2 in the patch"),
        (_file("w", dtype="I64"), "tensor 'p:w' is of I64, which is never patched"),
        (_file("w", dtype="F8_E4M3"), "tensor 'p:w' is of F8_E4M3, which is never patched"),
    ],
)
def test_each_tensor_that_does_not_fit_is_named(header: Header, reason: str) -> None:
    assert fit.check({"p": header}, [_place("p", "w")]) == [reason]


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_floating_tensors_fit(dtype: str) -> None:
    assert fit.check({"p": _file("w", dtype=dtype)}, [_place("p", "w")]) == []


def test_a_tensor_cannot_move_in_two_ways() -> None:
    base = {"p": _file("w", "v")}
    summed = [_place("p", "w"), _place("p", "v")]
    rescaled = [_place("elsewhere", "v", kind=Kind.LOG_RATIO)]

    assert fit.mixed(base, [summed, summed]) == []
    assert fit.mixed(base, [summed, rescaled]) == [
        "tensor 'p:v' would move both by a sum and by a ratio"
    ]


def test_touched_tensors_stand_in_file_order() -> None:
    base = {"a": _file("z", "y", "x"), "b": _file("w"), "c": _file("v")}
    patches = [[_place("a", "x")], [_place("a", "z"), _place("c", "v")]]

    assert fit.touched(base, patches) == {"a": ["z", "x"], "c": ["v"]}
    assert fit.touched(base, []) == {}


def test_a_place_is_recorded_and_read_again() -> None:
    place = _place("p", "w", (), Kind.LOG_RATIO)

    assert Place.from_json(place.to_json()) == place
    assert Place.of(place) == place


NAMES = st.sampled_from(["a", "b", "c"])
FILES = st.sampled_from(["one", "two"])
EXTENTS = st.sampled_from([(2,), (3,)])


@given(
    base=st.dictionaries(
        FILES,
        st.dictionaries(NAMES, st.tuples(st.sampled_from(["F16", "F8_E4M3"]), EXTENTS)),
        max_size=2,
    ),
    parts=st.dictionaries(st.tuples(FILES, NAMES), EXTENTS, min_size=1, max_size=3),
)
def test_what_the_index_finds_is_what_the_check_passes(
    base: dict[str, dict[str, tuple[str, tuple[int, ...]]]],
    parts: dict[tuple[str, str], tuple[int, ...]],
) -> None:
    headers = {
        path: compose([(name, dtype, shape) for name, (dtype, shape) in tensors.items()])
        for path, tensors in base.items()
    }
    places = [_place(path, name, shape) for (path, name), shape in parts.items()]

    needs, offers = fit.needs(places), fit.offers(headers)
    found = needs.by_address <= offers or (needs.by_name is not None and needs.by_name <= offers)

    there = fit.resolve(headers, places)
    ways = {address == where for address, where in there.items()}
    repeated = {name for name in base.get("one", {}) if name in base.get("two", {})}
    both_ways = len(ways) > 1 and any(place.name in repeated for place in places)
    assert found == (fit.check(headers, places) == []) or both_ways

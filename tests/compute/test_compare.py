"""Signatures compared from their patch files alone, against the formulas in plain numpy."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from service import errors
from service.compute import compare
from service.compute.catalogue import EXACT, identify, index
from service.compute.jobs import (
    IndexJob,
    IndexMade,
    KnownSignature,
    SignatureInput,
)
from service.compute.sources import PatchSource, decode
from service.layout import patchfile
from service.layout.codecs import Codec, Kind
from service.layout.header import Read
from service.layout.patchfile import Notes, Packed
from service.names import Digest, TensorAddress, digest_of
from tests.pairs import CPU, reader
from tests.patchfiles import sealed

Array = NDArray[np.float32]
Signature = dict[str, Array]


def patch(
    signature: Signature,
    *,
    weight: float = 2.0,
    path: str = "model.safetensors",
    norm: float | None = None,
) -> bytes:
    """An exact patch file; kernels are additive, and as long as they are unless told otherwise."""
    packed, codes = [], b""
    for name, values in signature.items():
        content = values.astype("<f4").tobytes()
        codes += content
        length = float(np.linalg.norm(values.astype(np.float64)))
        packed.append(
            Packed(
                TensorAddress(path, name),
                values.shape,
                Kind.ADDITIVE,
                Codec.F32,
                0,
                length if norm is None else norm,
                weight,
                digest_of(content).removeprefix("sha256:"),
            )
        )
    made = patchfile.compose_index(packed, Notes())
    return sealed(patchfile.compose_header(packed, len(made)).raw + codes + made, packed)


def source(content: bytes) -> PatchSource:
    return PatchSource(patchfile.read(reader(content), len(content)), reader(content))


def random(seed: int, names: str = "abc") -> Signature:
    generator = np.random.default_rng(seed)
    shapes = {"a": (8, 3, 3, 3), "b": (30, 20), "c": (16, 40)}
    return {n: generator.standard_normal(shapes[n], dtype=np.float32) for n in names}


def plain_cosine(one: Signature, other: Signature) -> float:
    shared = sorted(one.keys() & other.keys())
    a, b = (np.concatenate([s[n].ravel() for n in shared]).astype(np.float64) for s in (one, other))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


# ── sets ─────────────────────────────────────────────────────────────────────────────────────


def test_a_set_is_compared_as_the_formulas_say() -> None:
    signatures = [random(1), random(2, "ab"), random(3, "bc")]
    weights = [2.0, 2.0, 2.0]

    found = compare.compare(
        [source(patch(s, weight=w)) for s, w in zip(signatures, weights, strict=True)],
        CPU,
        lambda _: None,
    )

    for i, j in combinations(range(3), 2):
        one, other = signatures[i], signatures[j]
        shared = one.keys() & other.keys()
        gram = sum(float(np.sum(one[n].astype(float) * other[n])) for n in shared) / 4
        assert found["gram"][i][j] == pytest.approx(gram, abs=1e-6)
        assert found["cosines"][i][j] == pytest.approx(plain_cosine(one, other), abs=1e-6)
        energy = {n: float(np.sum(one[n].astype(float) ** 2)) for n in one}
        part = sum(energy[n] for n in shared) / sum(energy.values())
        assert found["shared"][i][j] == pytest.approx(part, rel=1e-6)
        opposed = sum(int(np.sum(one[n] * other[n] < 0)) for n in shared)
        assert found["conflict"][i][j] == opposed / sum(one[n].size for n in shared)
    total = np.zeros((3, 3))
    for layer in found["layers"]:
        at = np.array(layer["patches"])
        total[np.ix_(at, at)] += np.array(layer["gram"])
    np.testing.assert_allclose(total, found["gram"], rtol=1e-12)
    assert [layer["patches"] for layer in found["layers"]] == [[0, 1], [0, 1, 2], [0, 2]]


def test_lengths_are_those_before_packing() -> None:
    signature = random(1)
    doubled = {name: 2 * values for name, values in signature.items()}
    stated = patch(doubled, norm=float(np.linalg.norm(doubled["a"])) / 2)

    found = compare.compare([source(stated)], CPU, lambda _: None)

    layers = {layer["tensor"]: layer["gram"] for layer in found["layers"]}
    assert layers["a"][0][0] == pytest.approx(np.sum(signature["a"] ** 2) / 4, rel=1e-5)


def test_models_of_other_weights_share_one_measure_in_a_gram_matrix() -> None:
    signature = random(1, "b")

    found = compare.compare(
        [source(patch(signature, weight=1.0)), source(patch(signature, weight=7.0))],
        CPU,
        lambda _: None,
    )

    energy = float(np.sum(signature["b"].astype(float) ** 2)) / 25  # the mean of 1 and 49
    np.testing.assert_allclose(found["gram"], np.full((2, 2), energy), rtol=1e-6)
    assert found["cosines"][0][1] == pytest.approx(1)


def test_what_does_not_fit_into_memory_at_once_is_compared_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources = [source(patch(random(seed))) for seed in range(5)]
    whole = compare.compare(sources, CPU, lambda _: None)
    monkeypatch.setattr(compare, "_BLOCK_BYTES", 5000)

    in_parts = compare.compare(sources, CPU, lambda _: None)

    np.testing.assert_allclose(in_parts["gram"], whole["gram"], rtol=1e-12)
    assert in_parts["conflict"] == whole["conflict"]


def test_of_many_only_the_totals_are_told() -> None:
    sources = [source(patch(random(seed, "a"))) for seed in range(compare.LAYERED + 1)]

    found = compare.compare(sources, CPU, lambda _: None)

    assert found["layers"] == []
    assert len(found["gram"]) == compare.LAYERED + 1


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("model.safetensors", "clean.safetensors", True),
        ("unet/a.safetensors", "unet/b.safetensors", True),
        ("unet/a.safetensors", "vae/a.safetensors", False),
    ],
)
def test_the_files_of_a_folder_are_one_model(one: str, other: str, *, shared: bool) -> None:
    signature = random(1)

    found = compare.compare(
        [source(patch(signature, path=one)), source(patch(signature, path=other))],
        CPU,
        lambda _: None,
    )

    assert (found["shared"][0][1] > 0) == shared


def test_a_folder_that_repeats_a_name_is_told_apart_by_file() -> None:
    signature = random(1, "b")
    content = patch(signature)
    twice = patchfile.read(reader(content), len(content)).tensors
    both = (*twice, *(replace(tensor, path="ema.safetensors") for tensor in twice))

    found = compare.kernels(replace(source(content).patch, tensors=both))

    assert {place for place, _ in found} == {"model.safetensors:b", "ema.safetensors:b"}


@pytest.mark.parametrize(("norm", "weight"), [(0.0, 1.0), (3e38, 1e-38), (1e-30, 1e-30)])
def test_lies_about_norms_are_harmless(norm: float, weight: float) -> None:
    hostile, honest = source(patch(random(1), norm=norm, weight=weight)), source(patch(random(2)))

    found = compare.compare([hostile, honest], CPU, lambda _: None)

    assert compare.measure(hostile, CPU).length < np.inf
    assert np.all(np.abs(found["cosines"]) <= 1)


def test_norms_out_of_all_proportion_are_refused() -> None:
    honest = source(patch(random(1)))
    lies = tuple(replace(tensor, weight_norm=1e-300) for tensor in honest.patch.tensors)
    hostile = PatchSource(replace(honest.patch, tensors=lies), honest.read)

    with pytest.raises(errors.NotAPatchFile, match="proportion"):
        compare.measure(hostile, CPU)
    with pytest.raises(errors.NotAPatchFile, match="proportion"):
        compare.compare([hostile, hostile], CPU, lambda _: None)


# ── the catalogue ────────────────────────────────────────────────────────────────────────────


class Shelf:
    """Patch files by number, as a store would hold them."""

    def __init__(self, signatures: Sequence[Signature]) -> None:
        self.signatures = list(signatures)
        self.contents = {digest_of(c): c for c in map(patch, self.signatures)}
        self.files = [
            SignatureInput(number, digest, len(content))
            for number, (digest, content) in enumerate(self.contents.items(), start=1)
        ]

    def open_read(self, digest: Digest) -> Read:
        if digest not in self.contents:
            raise errors.BlobNotFound(digest)
        return reader(self.contents[digest])

    def index(self, new: Sequence[int], known: Sequence[KnownSignature] = ()) -> IndexMade:
        job = IndexJob(tuple(self.files[number - 1] for number in new), tuple(known), 3)
        return index(job, self.open_read, CPU, lambda *_: None)

    def known(self, made: IndexMade, floor: float = -1.0) -> list[KnownSignature]:
        return [
            KnownSignature(self.files[number - 1], measures, floor)
            for number, measures in made.measures.items()
        ]


def family(count: int) -> list[Signature]:
    """Signatures that are less and less like the first one."""
    start = random(0)
    return [
        {n: v + np.float32(number / 4) * random(100 + number)[n] for n, v in start.items()}
        for number in range(count)
    ]


def test_the_nearest_are_found_and_exact() -> None:
    shelf = Shelf(family(12))
    before = shelf.index(range(2, 13))

    made = shelf.index([1], shelf.known(before))

    own = [each for each in made.likenesses if each.one == 1]
    assert [each.other for each in own] == [2, 3, 4]
    for each in own:
        wanted = plain_cosine(shelf.signatures[0], shelf.signatures[each.other - 1])
        assert each.error == 0
        assert each.cosine == pytest.approx(wanted, abs=1e-6)


def test_those_known_before_hear_of_a_new_one_that_is_nearer_than_what_they_have() -> None:
    shelf = Shelf(family(6))
    before = shelf.index(range(2, 7))

    made = shelf.index([1], shelf.known(before, floor=0.66))

    told = {each.one for each in made.likenesses if each.other == 1}
    exact = [plain_cosine(shelf.signatures[0], other) for other in shelf.signatures]
    assert len(shelf.signatures) <= EXACT
    assert len(told) < len(before.measures)
    assert told == {number for number in range(2, 7) if exact[number - 1] > 0.66}


def test_one_file_that_cannot_be_read_stops_no_other() -> None:
    shelf = Shelf(family(3))
    content = bytearray(shelf.contents[shelf.files[1].digest])
    content[source(bytes(content)).patch.header.data_start] ^= 1
    shelf.contents[shelf.files[1].digest] = bytes(content)
    del shelf.contents[shelf.files[2].digest]

    made = shelf.index([1, 2, 3])

    assert set(made.measures) == {1}
    assert "digest" in made.unreadable[2]
    assert "no blob" in made.unreadable[3]


def test_an_estimate_stands_where_the_other_file_is_gone() -> None:
    shelf = Shelf(family(2))
    known = shelf.known(shelf.index([2]))
    del shelf.contents[shelf.files[1].digest]

    made = shelf.index([1], known)

    wanted = plain_cosine(*shelf.signatures)
    assert {each.one for each in made.likenesses} == {1, 2}
    for each in made.likenesses:
        assert each.error > 0
        assert abs(each.cosine - wanted) < 5 * each.error


def test_an_unknown_signature_is_compared_with_all_that_share_a_kernel() -> None:
    shelf = Shelf([*family(4), {"other": np.ones((4, 4), np.float32)}])
    known = shelf.known(shelf.index(range(1, 6)))
    unknown = {n: 3 * v for n, v in shelf.signatures[2].items()}

    found = identify(source(patch(unknown)), known, shelf.open_read, CPU, lambda *_: None)

    ranked = sorted(found.likenesses, key=lambda each: -each.cosine)
    assert {each.other for each in ranked} == {1, 2, 3, 4}
    assert (ranked[0].other, ranked[0].error) == (3, 0.0)
    assert ranked[0].cosine == pytest.approx(1)


def test_decoding_is_what_a_build_adds() -> None:
    signature = random(5)
    made = source(patch(signature))

    decoded = {tensor.name: decode(made, tensor, CPU).numpy() for tensor in made.patch.tensors}

    assert all(np.array_equal(decoded[name], signature[name]) for name in signature)

"""Patch files written, read by the drawing alone, and refused when they lie."""

import hashlib
import io
import json
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

from service import errors
from service.layout import patchfile
from service.layout.codecs import Codec, Kind, codes_bytes, halves_count
from service.layout.header import compose
from service.layout.patchfile import Notes, Packed, PatchFile
from service.names import TensorAddress
from service.tensors import codec, raw

NOTES = Notes(
    {"quality": "standard"}, {"clean": {"digest": "sha256:" + "a" * 64}}, {"energy_kept": 0.9}
)


def _packed(name: str, how: Codec, shape: tuple[int, ...], path: str = "m.safetensors") -> Packed:
    digest = hashlib.sha256(name.encode()).hexdigest()
    address = TensorAddress(path, name)
    return Packed(address, shape, Kind.ADDITIVE, how, -12, 0.25, 1.5, digest)


def _write(tensors: list[Packed], index: bytes | None = None, filler: int = 0x3C) -> bytes:
    halves = sum(halves_count(t.codec, t.shape) for t in tensors)
    codes = sum(codes_bytes(t.codec, t.shape) for t in tensors)
    index = patchfile.compose_index(tensors, NOTES) if index is None else index
    header = patchfile.compose_header(tensors, len(index))
    return header.raw + bytes([0, filler]) * halves + bytes([filler]) * codes + index


def _read(content: bytes) -> PatchFile:
    return patchfile.read(lambda start, end: content[start:end], len(content))


SOME = [
    _packed("conv1.weight", Codec.Q2, (16, 1, 3, 3)),
    _packed("conv1.bias", Codec.F16, (16,)),
    _packed("scale", Codec.F32, (), "other.safetensors"),
    _packed("conv2.weight", Codec.Q4, (3, 5)),
    _packed("small.weight", Codec.Q8, (2, 2)),
]


def test_what_was_written_is_read() -> None:
    content = _write(SOME)

    patch = _read(content)

    assert [tensor.address for tensor in patch.tensors] == [tensor.address for tensor in SOME]
    assert [tensor.shape for tensor in patch.tensors] == [tensor.shape for tensor in SOME]
    assert [tensor.codec for tensor in patch.tensors] == [tensor.codec for tensor in SOME]
    assert [tensor.digest for tensor in patch.tensors] == [tensor.digest for tensor in SOME]
    assert patch.paths == ("m.safetensors", "other.safetensors")
    assert (patch.parameters, patch.inputs, patch.summary) == (
        NOTES.parameters,
        NOTES.inputs,
        NOTES.summary,
    )
    assert patch.size_bytes == len(content)
    assert patch.input_digest("clean") == "sha256:" + "a" * 64
    assert patch.input_digest("robust") is None


def test_equal_tensors_give_equal_bytes() -> None:
    assert _write(SOME) == _write(list(SOME))


def test_the_library_reads_a_patch_file() -> None:
    tensors = load(_write(SOME))

    assert set(tensors) == {"halves", "codes", "index"}
    assert tensors["halves"].dtype == np.float16


def test_the_index_of_a_small_patch_stays_small() -> None:
    layers = [(f"features.{n}.weight", f"features.{n}.bias") for n in (0, 2, 5, 7, 10, 12, 15)]
    tensors = [
        packed
        for weight, bias in layers
        for packed in (_packed(weight, Codec.Q2, (64, 32, 3, 3)), _packed(bias, Codec.F16, (64,)))
    ]

    assert len(patchfile.compose_index(tensors, NOTES)) < 1100


@given(st.floats(0, 2.0**127, width=32))
def test_norms_are_written_short_and_whole(norm: float) -> None:
    assert np.float32(patchfile._short(norm)) == np.float32(norm)


# ── the drawing ──────────────────────────────────────────────────────────────────────────────


def _by_the_drawing(content: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """Decode a patch file as the module's docstring says, with safetensors and numpy alone."""
    tensors = load(content)
    halves, codes = tensors["halves"], tensors["codes"]
    columns = json.loads(zlib.decompress(tensors["index"].tobytes()))["tensors"]
    decoded = {}
    for row in zip(
        *(columns[key] for key in ("name", "shape", "codec", "exponent", "bytes")), strict=True
    ):
        name, shape, how, exponent, size = row
        own, codes = codes[:size], codes[size:]
        taken = {"f32": 0, "f16": int(np.prod(shape))}.get(how, shape[0] if shape else 0)
        half, halves = halves[:taken].astype("f4") * np.float32(2.0**exponent), halves[taken:]
        n = int(np.prod(shape))
        if how == "f32":
            flat = np.frombuffer(own.tobytes(), "<f4")
        elif how == "f16":
            flat = half
        else:
            if how == "q8":
                levels = own.view(np.int8).astype("f4")
            elif how == "q4":
                levels = np.stack([own & 15, own >> 4], 1).ravel().astype("f4") - np.float32(8)
            else:
                table = np.array([-1.510, -0.4528, 0.4528, 1.510], "f4")
                levels = table[np.stack([own >> shift & 3 for shift in (0, 2, 4, 6)], 1).ravel()]
            flat = (levels[:n].reshape(shape[0], -1) * half[:, None]).ravel()
        decoded[name] = flat.reshape(shape)
    return decoded


@given(
    seed=st.integers(0, 2**32),
    hows=st.lists(st.sampled_from(list(Codec)), min_size=1, max_size=4),
    magnitude=st.sampled_from([1e-42, 1e-6, 1e20]),
)
@settings(deadline=None, max_examples=60)
def test_the_drawing_is_enough_to_decode(seed: int, hows: list[Codec], magnitude: float) -> None:
    random_shapes = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    halves, codes, tensors, expected = io.BytesIO(), io.BytesIO(), [], {}
    for number, how in enumerate(hows):
        shape = tuple(
            int(random_shapes.integers(1, 6)) for _ in range(random_shapes.integers(1, 4))
        )
        coded = codec.encode(torch.randn(shape, generator=generator) * magnitude, how)
        decoded = codec.decode(coded, how, shape)
        halves.write(raw.octets(coded.halves))
        codes.write(raw.octets(coded.codes))
        digest = hashlib.sha256(raw.octets(decoded)).hexdigest()
        address = TensorAddress("m", f"t{number}")
        tensors.append(
            Packed(address, shape, Kind.ADDITIVE, how, coded.exponent, None, None, digest)
        )
        expected[address.name] = digest
    index = patchfile.compose_index(tensors, Notes())
    header = patchfile.compose_header(tensors, len(index))

    found = _by_the_drawing(header.raw + halves.getvalue() + codes.getvalue() + index)

    digests = {
        name: hashlib.sha256(D.astype("<f4").tobytes()).hexdigest() for name, D in found.items()
    }
    assert digests == expected


# ── hostile files ────────────────────────────────────────────────────────────────────────────

REFUSED = (errors.NotAPatchFile, errors.NotSafetensors, errors.UnsupportedFormat)


def _lie(change: Callable[[dict[str, Any]], object]) -> bytes:
    """A file whose index was changed."""
    value = json.loads(zlib.decompress(patchfile.compose_index(SOME, NOTES)))
    change(value)
    return _write(SOME, zlib.compress(json.dumps(value).encode()))


def _put(column: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda index: index["tensors"][column].__setitem__(0, value)


@pytest.mark.parametrize(
    "change",
    [
        _put("shape", [16, 1, 3, 4]),
        _put("shape", [2**40, 2**40, 2**40]),
        _put("shape", [1] * 10_000),
        _put("shape", [-16, -9]),
        _put("shape", [True, 144]),
        _put("shape", []),
        _put("shape", None),
        _put("bytes", 35),
        _put("bytes", 2**60),
        _put("bytes", 36.0),
        _put("codec", "q3"),
        _put("codec", ["q2"]),
        _put("codec", "q8"),
        _put("kind", "multiplicative"),
        _put("exponent", 128),
        _put("exponent", -127),
        _put("exponent", 0.5),
        _put("file", 2),
        _put("file", -1),
        _put("name", ""),
        _put("name", 7),
        _put("name", "\ud800"),
        _put("name", "a\x00"),
        _put("name", "conv1.bias"),
        _put("sha256", "0" * 63),
        _put("sha256", "G" * 64),
        _put("sha256", None),
        _put("norm", -1),
        _put("norm", 10**400),
        _put("norm", "1"),
        _put("weight_norm", [1.0]),
        lambda index: index["tensors"]["norm"].pop(),
        lambda index: index["tensors"].pop("sha256"),
        lambda index: index["tensors"].update({key: [] for key in index["tensors"]}),
        lambda index: [column.pop() for column in index["tensors"].values()],
        lambda index: index.update(tensors=[]),
        lambda index: index.update(files="m"),
        lambda index: index.update(files=[3, 4]),
        lambda index: index.update(parameters=None),
        lambda index: index.pop("summary"),
    ],
)
def test_an_index_that_lies_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(errors.NotAPatchFile):
        _read(_lie(change))


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"no zlib",
        zlib.compress(b"no json"),
        zlib.compress(b"[]"),
        zlib.compress(b'{"tensors": NaN}'),
        zlib.compress(b'{"files": [], "files": []}'),
        zlib.compress(b"\xff\xfe"),
        zlib.compress(b"[" * 100_000),
        zlib.compress(b"1" * 10_000),
        zlib.compress(b"{}")[:-1],
        zlib.compress(b"{}") + b"more",
    ],
)
def test_an_index_that_cannot_be_read_is_refused(index: bytes) -> None:
    with pytest.raises(errors.NotAPatchFile):
        _read(_write(SOME, index))


@pytest.mark.parametrize(
    "bomb",
    [b" " * (300 * 2**20), b"{" + b'"a":[],' * 2_000_000 + b'"b":0}'],
    ids=["spaces", "lists"],
)
def test_a_bomb_is_refused_before_it_goes_off(bomb: bytes) -> None:
    content = _write(SOME, zlib.compress(bomb, 1))
    del bomb

    tracemalloc.start()
    with pytest.raises(errors.NotAPatchFile):
        _read(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 5 * patchfile.MAX_INDEX_BYTES


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ([("halves", "F16", (1,)), ("codes", "U8", (1,)), ("index", "U8", (1,))], None),
        ([("halves", "F16", (1,)), ("codes", "U8", (1,)), ("index", "U8", (1,))], {"format": "pt"}),
        ([("halves", "F16", (1,)), ("codes", "U8", (1,))], patchfile.METADATA),
        (
            [("halves", "U16", (1,)), ("codes", "U8", (1,)), ("index", "U8", (1,))],
            patchfile.METADATA,
        ),
        (
            [("halves", "F16", (1, 1)), ("codes", "U8", (1,)), ("index", "U8", (1,))],
            patchfile.METADATA,
        ),
        ([("w", "F32", (2, 2))], patchfile.METADATA),
    ],
)
def test_another_safetensors_file_is_refused(
    tensors: list[tuple[str, str, tuple[int, ...]]], metadata: dict[str, str] | None
) -> None:
    header = compose(tensors, metadata)

    with pytest.raises(errors.NotAPatchFile):
        _read(header.raw + bytes(header.file_size - header.data_start))


def test_a_later_version_is_refused_by_its_number() -> None:
    content = _write(SOME).replace(b'"version":"1"', b'"version":"2"')

    with pytest.raises(errors.NotAPatchFile, match="version '2'"):
        _read(content)


def test_a_file_cut_off_anywhere_is_refused() -> None:
    content = _write(SOME)

    for end in range(len(content)):
        with pytest.raises(REFUSED):
            _read(content[:end])


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_flipped_bits_are_refused_or_leave_a_file_that_holds_together(data: st.DataObject) -> None:
    content = bytearray(_write(SOME))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))

    try:
        patch = _read(bytes(content))
    except REFUSED:
        return

    assert all(tensor.codes.end <= len(content) for tensor in patch.tensors)

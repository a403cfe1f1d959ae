"""Patch files written and read again, and refused when they lie."""

import hashlib
import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

from service import errors
from service.layout import patchfile
from service.layout.codecs import Codec, Kind, halves_count
from service.layout.header import compose
from service.layout.patchfile import Notes, Packed, PatchFile
from service.names import TensorAddress
from tests.patchfiles import sealed

NOTES = Notes(
    {"quality": "standard"}, {"clean": {"digest": "sha256:" + "a" * 64}}, {"energy_kept": 0.9}
)
FIRST = Path(__file__).with_name("files") / "version-1.rws.safetensors"


def _packed(
    name: str, how: Codec, shape: tuple[int, ...], path: str = "m.safetensors", deflated: int = 0
) -> Packed:
    digest = hashlib.sha256(name.encode()).hexdigest()
    norm, weight = (0.25, 1.5) if len(shape) > 1 else (None, None)
    address = TensorAddress(path, name)
    return Packed(address, shape, Kind.ADDITIVE, how, -12, norm, weight, digest, deflated)


def _write(tensors: list[Packed], index: bytes | None = None, filler: int = 0x3C) -> bytes:
    halves = sum(halves_count(t.codec, t.shape) for t in tensors)
    codes = sum(t.stored_bytes for t in tensors)
    index = patchfile.compose_index(tensors, NOTES) if index is None else index
    header = patchfile.compose_header(tensors, len(index))
    before = header.raw + bytes([0, filler]) * halves + bytes([filler]) * codes + index
    return sealed(before, tensors)


def _read(content: bytes) -> PatchFile:
    return patchfile.read(lambda start, end: content[start:end], len(content))


SOME = [
    _packed("conv1.weight", Codec.Q2, (16, 1, 3, 3)),
    _packed("conv1.bias", Codec.F16, (16,)),
    _packed("scale", Codec.F32, (), "other.safetensors"),
    _packed("conv2.weight", Codec.Q4, (3, 5)),
    _packed("small.weight", Codec.Q8, (2, 2)),
    _packed("conv3.weight", Codec.FIVE, (4, 25), deflated=25),
    _packed("conv4.weight", Codec.FIVE, (4, 5)),
]


def test_what_was_written_is_read() -> None:
    content = _write(SOME)

    patch = _read(content)

    for tensor, packed in zip(patch.tensors, SOME, strict=True):
        assert (tensor.address, tensor.shape, tensor.kind) == (
            packed.address,
            packed.shape,
            packed.kind,
        )
        assert (tensor.codec, tensor.exponent) == (packed.codec, packed.exponent)
        assert tensor.codes.size_bytes == packed.stored_bytes
        assert tensor.deflated == packed.deflated
        assert (tensor.norm, tensor.weight_norm) == (packed.norm, packed.weight_norm)
        assert tensor.digest == packed.digest[:16]
    assert patch.paths == ("m.safetensors", "other.safetensors")
    assert (patch.parameters, patch.inputs, patch.summary) == (
        NOTES.parameters,
        NOTES.inputs,
        NOTES.summary,
    )
    assert patch.size_bytes == len(content)
    assert patch.input_digest("clean") == "sha256:" + "a" * 64
    assert patch.input_digest("robust") is None
    assert patch.seal == content[-32:]


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

    assert len(patchfile.compose_index(tensors, NOTES)) < 600


@given(st.floats(0, 2.0**127, width=32))
def test_norms_are_kept_as_they_are(norm: float) -> None:
    address = TensorAddress("m", "w")
    packed = Packed(address, (2, 2), Kind.ADDITIVE, Codec.Q8, 0, norm, norm, "0" * 64)

    [tensor] = _read(_write([packed])).tensors

    assert (tensor.norm, tensor.weight_norm) == (norm, norm)


# ── hostile files ────────────────────────────────────────────────────────────────────────────

REFUSED = (errors.NotAPatchFile, errors.NotSafetensors, errors.UnsupportedFormat)


def _lie(change: Callable[[dict[str, Any]], object]) -> bytes:
    """A file whose JSON was changed."""
    stream = zlib.decompressobj()
    value = json.loads(stream.decompress(patchfile.compose_index(SOME, NOTES)))
    change(value)
    return _write(SOME, zlib.compress(json.dumps(value).encode()) + stream.unused_data)


def _lie_in_the_first(change: Callable[[dict[str, Any]], object]) -> bytes:
    """A file of version 1 whose index was changed."""
    content = FIRST.read_bytes()
    header = _read(content).header
    entry = header.entry("index")
    value = json.loads(zlib.decompress(content[entry.start :]))
    change(value)
    index = zlib.compress(json.dumps(value).encode())
    sizes = {t.name: t.shape for t in header.tensors} | {"index": (len(index),)}
    lied = compose([(t.name, t.dtype, sizes[t.name]) for t in header.tensors], header.metadata)
    return lied.raw + content[header.data_start : entry.start] + index


def _put(column: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda index: index["tensors"][column].__setitem__(0, value)


COMMON = [
    _put("shape", [16, 1, 3, 4]),
    _put("shape", [2**40, 2**40, 2**40]),
    _put("shape", [1] * 10_000),
    _put("shape", [-16, -9]),
    _put("shape", [True, 144]),
    _put("shape", []),
    _put("shape", None),
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
    lambda index: index["tensors"]["exponent"].pop(),
    lambda index: index["tensors"].pop("file"),
    lambda index: index["tensors"].update({key: [] for key in index["tensors"]}),
    lambda index: [column.pop(0) for column in index["tensors"].values()],
    lambda index: index.update(tensors=[]),
    lambda index: index.update(files="m"),
    lambda index: index.update(files=[3, 4]),
    lambda index: index.update(parameters=None),
    lambda index: index.pop("summary"),
]


@pytest.mark.parametrize(
    "change",
    [
        *COMMON,
        _put("deflated", 35),
        _put("deflated", 36),
        _put("deflated", 4),
        _put("deflated", -1),
        _put("deflated", 2**60),
        _put("deflated", 20.0),
        _put("deflated", value=True),
        _put("kernel", 0),
        _put("kernel", 2),
        _put("kernel", value=True),
        _put("kernel", "1"),
        lambda index: index["tensors"]["kernel"].__setitem__(1, 1),
    ],
)
def test_an_index_that_lies_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(errors.NotAPatchFile):
        _read(_lie(change))


@pytest.mark.parametrize(
    "change",
    [
        *COMMON,
        _put("bytes", 11),
        _put("bytes", 2**60),
        _put("bytes", 12.0),
        _put("codec", "five"),
        _put("sha256", "0" * 63),
        _put("sha256", "G" * 64),
        _put("sha256", None),
        _put("norm", -1),
        _put("norm", 10**400),
        _put("norm", "1"),
        _put("weight_norm", [1.0]),
    ],
)
def test_an_index_of_version_1_that_lies_is_refused(
    change: Callable[[dict[str, Any]], object],
) -> None:
    with pytest.raises(errors.NotAPatchFile):
        _read(_lie_in_the_first(change))


@pytest.mark.parametrize("norm", [-1.0, float("nan"), float("inf")])
def test_norms_that_are_none_are_refused(norm: float) -> None:
    index = bytearray(patchfile.compose_index(SOME, NOTES))
    stream = zlib.decompressobj()
    stream.decompress(bytes(index))
    struct.pack_into("<f", index, len(index) - len(stream.unused_data), norm)

    with pytest.raises(errors.NotAPatchFile, match="norm"):
        _read(_write(SOME, bytes(index)))


@pytest.mark.parametrize("change", [lambda tail: tail[:-1], lambda tail: tail + b"\0"])
def test_a_tail_of_another_length_is_refused(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(errors.NotAPatchFile, match="length"):
        _read(_write(SOME, change(patchfile.compose_index(SOME, NOTES))))


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
    content = _write(SOME).replace(b'"version":"2"', b'"version":"3"')

    with pytest.raises(errors.NotAPatchFile, match="version '3'; this release reads 1 and 2"):
        _read(content)


@pytest.mark.parametrize("content", [_write(SOME), FIRST.read_bytes()], ids=["2", "1"])
def test_a_file_cut_off_anywhere_is_refused(content: bytes) -> None:
    for end in range(len(content)):
        with pytest.raises(REFUSED):
            _read(content[:end])


@pytest.mark.parametrize("content", [_write(SOME), FIRST.read_bytes()], ids=["2", "1"])
def test_a_file_with_something_behind_it_is_refused(content: bytes) -> None:
    with pytest.raises(REFUSED):
        _read(content + b"\0")


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_flipped_bits_are_refused_or_leave_a_file_that_holds_together(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from([_write(SOME), FIRST.read_bytes()])))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))

    try:
        patch = _read(bytes(content))
    except REFUSED:
        return

    assert all(tensor.codes.end <= len(content) for tensor in patch.tensors)

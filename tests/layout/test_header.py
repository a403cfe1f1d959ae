"""The header parser against the safetensors library, and against hostile bytes."""

import json
import struct
from typing import Any

import pytest
import safetensors
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from service import errors
from service.layout.header import (
    DTYPES,
    MAX_HEADER_BYTES,
    Header,
    compose,
    parse,
    read_header,
    sniff,
)

ONE: dict[str, Any] = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}

TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
}
NAMES = st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda name: name != "__metadata__")  # fmt: skip
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
TENSORS = st.dictionaries(NAMES, st.tuples(st.sampled_from(sorted(TORCH_DTYPES)), SHAPES))


def file_of(fields: object, data: bytes = b"") -> bytes:
    text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + data


def library_reads(file: bytes) -> dict[str, dict[str, Any]]:
    return dict(safetensors.deserialize(file))  # type: ignore[no-untyped-call]


def header_of(file: bytes) -> Header:
    return parse(file, len(file))


@given(TENSORS, st.dictionaries(NAMES, NAMES, max_size=2))
def test_what_the_library_writes_is_read_back(
    tensors: dict[str, tuple[str, tuple[int, ...]]], metadata: dict[str, str]
) -> None:
    weights = {n: torch.zeros(s, dtype=TORCH_DTYPES[d]) for n, (d, s) in tensors.items()}
    file = save(weights, metadata or None)

    header = header_of(file)

    assert {t.name: (t.dtype, t.shape) for t in header.tensors} == tensors
    assert header.metadata == metadata
    assert header.raw == file[: header.data_start]
    for tensor in header.tensors:
        assert tensor.numel == weights[tensor.name].numel()
        assert tensor.size_bytes == tensor.numel * weights[tensor.name].element_size()


@given(TENSORS.flatmap(lambda some: st.permutations(list(some.items()))), st.binary(min_size=8))
def test_what_is_composed_loads_in_the_library(
    tensors: list[tuple[str, tuple[str, tuple[int, ...]]]], noise: bytes
) -> None:
    header = compose([(name, dtype, shape) for name, (dtype, shape) in tensors], {"a": "ö"})
    data = (noise * 1000)[: header.file_size - header.data_start]
    data += bytes(header.file_size - header.data_start - len(data))

    loaded = load(header.raw + data)

    assert header.data_start % 8 == 0
    whole = header.raw + data
    for tensor in header.tensors:
        got = loaded[tensor.name]
        assert tuple(got.shape) == tensor.shape
        assert got.dtype == TORCH_DTYPES[tensor.dtype]
        again = torch.empty(0, dtype=torch.uint8)
        if tensor.size_bytes:
            again = got.contiguous().reshape(-1).view(torch.uint8)
        assert bytes(again.tolist()) == whole[tensor.start : tensor.end]


def test_composed_tensors_lie_in_the_given_order() -> None:
    header = compose([("z", "U8", (3,)), ("a", "F64", ()), ("m", "F32", (0, 2))])

    assert header.names == ("z", "a", "m")
    assert [t.start - header.data_start for t in header.tensors] == [0, 3, 11]


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_every_dtype_is_one_that_the_library_knows(dtype: str) -> None:
    header = compose([("w", dtype, (8,))])

    found = library_reads(header.raw + bytes(header.file_size - header.data_start))

    assert found["w"]["dtype"] == dtype
    assert len(found["w"]["data"]) == DTYPES[dtype]


def test_a_header_is_read_with_two_reads_at_most() -> None:
    header = compose([(f"layer.{n:05}.weight", "F32", (1,)) for n in range(2000)])
    file = header.raw + bytes(8000)
    reads = []

    def read(start: int, end: int) -> bytes:
        reads.append((start, end))
        return file[start:end]

    again = read_header(read, len(file))

    assert again == header
    assert reads == [(0, 65536), (65536, header.data_start)]


def test_a_tensor_that_is_not_there_is_named() -> None:
    header = header_of(file_of(ONE, bytes(8)))

    with pytest.raises(errors.ThingNotFound, match="no tensor 'v'"):
        header.entry("v")

    assert "v" not in header
    assert header.entry("w").shape == (2,)


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> object:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "too few"),
    "seven bytes": (b"1234567", "too few"),
    "length over the cap": (struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{}", "over the limit"),
    "length over the file": (struct.pack("<Q", 99) + b"{}", "announces a header of 99"),
    "no header": (struct.pack("<Q", 0), "not JSON"),
    "no brace": (file_of(b" {}"), "begin with {"),
    "not JSON": (file_of(b"{]"), "not JSON"),
    "NaN": (file_of(b'{"w": NaN}'), "NaN"),
    "long number": (file_of(b'{"w":' + b"9" * 5000 + b"}"), "not JSON"),
    "deep": (file_of(b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "nested too deeply"),
    "deep shape": (file_of(entry(shape=json.loads("[" * 500 + "]" * 500))), "bad shape"),
    "not UTF-8": (file_of(b'{"\xff": 1}'), "not UTF-8"),
    "half a surrogate": (file_of(b'{"\\ud800":{}}'), "not Unicode"),
    "repeated name": (file_of(b'{"w":{},"w":{}}'), "repeats the name 'w'"),
    "repeated key": (file_of(b'{"w":{"dtype":"U8","dtype":"U8"}}'), "repeats the name 'dtype'"),
    "not an object": (file_of({"w": 3}), "not described"),
    "metadata not text": (file_of({"__metadata__": {"a": 1}}), "not text"),
    "metadata a list": (file_of({"__metadata__": []}), "not an object"),
    "unknown dtype": (file_of(entry("F31"), bytes(8)), "unknown dtype 'F31'"),
    "dtype a list": (file_of(entry(["F32"]), bytes(8)), "unknown dtype"),
    "no shape": (file_of({"w": {"dtype": "F32", "data_offsets": [0, 4]}}, bytes(4)), "bad shape"),
    "negative shape": (file_of(entry(shape=[-2]), bytes(8)), "bad shape"),
    "bool shape": (file_of(entry(shape=[True]), bytes(8)), "bad shape"),
    "minus zero": (
        file_of(b'{"w":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}'),
        "bad shape",
    ),
    "float shape": (file_of(entry(shape=[2.0]), bytes(8)), "bad shape"),
    "overflowing shape": (file_of(entry(shape=[2**40, 2**40, 0])), "impossible shape"),
    "half a byte": (file_of(entry("F4", [3], [0, 1]), bytes(1)), "whole bytes"),
    "short range": (file_of(entry(offsets=[0, 4]), bytes(4)), "takes 8 bytes"),
    "backward range": (file_of(entry(offsets=[8, 0]), bytes(8)), "span -8"),
    "three offsets": (file_of(entry(offsets=[0, 4, 8]), bytes(8)), "bad data_offsets"),
    "hole": (file_of(entry(offsets=[4, 12]), bytes(12)), "leaves a hole behind the header"),
    "overlap": (
        file_of(ONE | {"v": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, bytes(12)),
        "'v' overlaps tensor 'w'",
    ),
    "cut off": (file_of(ONE, bytes(7)), "cut off"),
    "padded": (file_of(ONE, bytes(9)), "no tensor covers"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_header_is_refused_saying_why(case: str) -> None:
    file, reason = BAD[case]

    with pytest.raises(errors.NotSafetensors) as caught:
        parse(file, len(file), "model.safetensors")

    assert reason in caught.value.reason
    assert caught.value.file == "model.safetensors"
    assert len(str(caught.value)) < 600


def test_a_prefix_shorter_than_the_header_is_refused() -> None:
    file = file_of(ONE, bytes(8))

    with pytest.raises(errors.NotSafetensors, match="cut off"):
        parse(file[:20], len(file))


@given(st.binary(max_size=60), st.integers(0, 60), st.binary(min_size=1, max_size=3))
def test_whatever_is_taken_the_library_takes_too(noise: bytes, at: int, put: bytes) -> None:
    good = file_of(ONE, bytes(8))
    for file in (noise, good[:at] + put + good[at + len(put) :], struct.pack("<Q", at) + noise):
        try:
            header = header_of(file)
        except (errors.NotSafetensors, errors.UnsupportedFormat):
            continue

        assert set(library_reads(file)) == set(header.names)


@pytest.mark.parametrize(
    ("prefix", "form"),
    [
        (b"PK\x03\x04\x00\x00\x08\x08", "PyTorch checkpoint"),
        (b"\x80\x02}q\x00", "pickle"),
        (b"\x80\x04\x95\x00", "pickle"),
        (b"GGUF\x03\x00", "GGUF"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x08\x08\x12\x07pytorch", "ONNX"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    ],
)
def test_other_formats_are_named_with_advice(prefix: bytes, form: str) -> None:
    with pytest.raises(errors.UnsupportedFormat) as caught:
        parse(prefix, 10**9, "weights.bin")

    assert form in caught.value.format
    assert caught.value.advice


def test_a_header_whose_length_looks_like_a_pickle_is_read() -> None:
    text = json.dumps(ONE).encode()
    file = struct.pack("<Q", 0x280) + text + b" " * (0x280 - len(text)) + bytes(8)

    sniff(file)

    assert file.startswith(b"\x80\x02")
    assert header_of(file).names == ("w",)

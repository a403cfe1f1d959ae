"""Patch files that were made elsewhere: whole ones pass, any lie is found."""

import hashlib
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest

from service import errors
from service.compute.verify import verify_patch
from service.layout import patchfile
from service.layout.codecs import Codec, Kind
from service.layout.patchfile import Notes, Packed
from service.names import TensorAddress
from service.tensors.selection import All, Named, Quality
from tests.pairs import CPU, Bench, Extracted, Three, reader
from tests.patchfiles import sealed

FILES = Path(__file__).parents[1] / "layout" / "patchfile" / "files"


def _verify(content: bytes) -> dict[str, Any]:
    return verify_patch(reader(content), len(content), CPU).summary


def _with_norm(made: Extracted, value: float) -> bytes:
    """The same file, but for the norm of its first kernel, the first number behind the JSON."""
    entry = made.source.patch.header.entry("index")
    stream = zlib.decompressobj()
    stream.decompress(made.content[entry.start :])
    content = bytearray(made.content)
    struct.pack_into("<f", content, len(content) - len(stream.unused_data), value)
    return bytes(content)


@pytest.mark.parametrize("quality", list(Quality))
def test_what_an_extraction_writes_is_verified(
    three: Three, bench: Bench, quality: Quality
) -> None:
    made = bench.extract(three.trio, layers=All(), quality=quality)

    summary = _verify(made.content)

    known = {key: value for key, value in made.result.summary.items() if key in summary}
    assert known | {"warnings": []} == summary


def test_every_flipped_byte_of_codes_or_scales_is_found(three: Three, bench: Bench) -> None:
    made = bench.extract(three.trio, layers=Named(("features.*",)))
    header = made.source.patch.header
    places = range(header.data_start, header.entry("codes").end, 97)

    for place in places:
        content = bytearray(made.content)
        content[place] ^= 0x10
        with pytest.raises(errors.NotAPatchFile, match="features"):
            _verify(bytes(content))


@pytest.mark.parametrize("factor", [1.05, 100.0])
@pytest.mark.parametrize("quality", list(Quality))
def test_a_norm_that_is_too_large_is_found(
    three: Three, bench: Bench, quality: Quality, factor: float
) -> None:
    made = bench.extract(three.trio, layers=All(), quality=quality)
    norm = made.source.patch.tensors[0].norm
    assert norm is not None

    with pytest.raises(errors.NotAPatchFile, match="norm"):
        _verify(_with_norm(made, norm * factor * 1.1))


def test_an_exact_file_cannot_understate_its_norm(three: Three, bench: Bench) -> None:
    made = bench.extract(three.trio, layers=All(), quality=Quality.EXACT)
    norm = made.source.patch.tensors[0].norm
    assert norm is not None

    with pytest.raises(errors.NotAPatchFile, match="norm"):
        _verify(_with_norm(made, norm * 0.9))


def test_a_seal_that_does_not_hold_is_found(three: Three, bench: Bench) -> None:
    made = bench.extract(three.trio)
    broken = made.content[:-1] + bytes([made.content[-1] ^ 1])

    with pytest.raises(errors.NotAPatchFile, match="seal"):
        _verify(broken)


@pytest.mark.parametrize("quality", [Quality.SMALL, Quality.TINY])
def test_a_broken_stream_of_codes_is_found(three: Three, bench: Bench, quality: Quality) -> None:
    made = bench.extract(three.trio, layers=All(), quality=quality)
    [where] = [t.codes for t in made.source.patch.tensors if t.name == "features.3.weight"]
    streams = [b"\0" * where.size_bytes, b"\xff" * where.size_bytes]

    for stream in streams:
        content = made.content[: where.start] + stream + made.content[where.end :]
        with pytest.raises(errors.NotAPatchFile, match=r"features\.3\.weight"):
            _verify(content)


def test_a_small_file_cannot_claim_a_large_tensor() -> None:
    address, digest = TensorAddress("m", "w"), "0" * 64
    claims = [
        Packed(address, (1, 2**30), Kind.ADDITIVE, Codec.FIVE, 0, 1.0, 1.0, digest, 3000),
        Packed(address, (1, 2**30), Kind.ADDITIVE, Codec.Q8, 0, 1.0, 1.0, digest, 2**27 + 1),
        Packed(address, (2**30, 0), Kind.ADDITIVE, Codec.Q8, 0, 1.0, 1.0, digest),
    ]

    tracemalloc.start()
    for claim in claims:
        index = patchfile.compose_index([claim], Notes())
        header = patchfile.compose_header([claim], len(index))
        content = sealed(header.raw + bytes(5000) + index, [claim])
        with pytest.raises((errors.NotAPatchFile, errors.NotSafetensors)):
            _verify(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 2**20


def test_a_flipped_bit_anywhere_is_found() -> None:
    content = (FILES / "version-2.rws.safetensors").read_bytes()

    for place in range(len(content)):
        broken = bytearray(content)
        broken[place] ^= 1 << place % 8
        with pytest.raises((errors.NotAPatchFile, errors.NotSafetensors, errors.UnsupportedFormat)):
            _verify(bytes(broken))


def test_a_flipped_bit_in_the_first_version_is_found_or_changes_no_tensor() -> None:
    content = (FILES / "version-1.rws.safetensors").read_bytes()
    whole = verify_patch(reader(content), len(content), CPU).patch.tensors

    for place in range(0, len(content), 23):
        broken = bytearray(content)
        broken[place] ^= 1 << place % 8
        try:
            left = verify_patch(reader(bytes(broken)), len(broken), CPU).patch.tensors
        except (errors.NotAPatchFile, errors.NotSafetensors, errors.UnsupportedFormat):
            continue
        assert [tensor.digest for tensor in left] == [tensor.digest for tensor in whole]


def test_values_that_are_not_finite_are_found() -> None:
    codes = struct.pack("<2f", 1.0, float("nan"))
    digest = hashlib.sha256(codes).hexdigest()
    tensor = Packed(TensorAddress("m", "w"), (2,), Kind.ADDITIVE, Codec.F32, 0, None, None, digest)
    index = patchfile.compose_index([tensor], Notes())
    header = patchfile.compose_header([tensor], len(index))

    with pytest.raises(errors.NotAPatchFile, match="NaN"):
        _verify(sealed(header.raw + codes + index, [tensor]))

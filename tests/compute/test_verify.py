"""Patch files that were made elsewhere: whole ones pass, any lie is found."""

import hashlib
import json
import struct
import zlib
from typing import Any

import pytest

from service import errors
from service.compute.verify import verify_patch
from service.layout import patchfile
from service.layout.codecs import Codec, Kind
from service.layout.header import compose
from service.layout.patchfile import Notes, Packed
from service.names import TensorAddress
from service.tensors.selection import All, Named, Quality
from tests.pairs import CPU, Bench, Extracted, Three, reader


def _verify(content: bytes) -> dict[str, Any]:
    return verify_patch(reader(content), len(content), CPU).summary


def _with_index(made: Extracted, column: str, value: Any) -> bytes:
    """The same file, but for the first value of one column of its index."""
    header = made.source.patch.header
    entry = header.entry("index")
    index = json.loads(zlib.decompress(made.content[entry.start : entry.end]))
    index["tensors"][column][0] = value
    packed = zlib.compress(json.dumps(index).encode())
    tensors = [
        (t.name, t.dtype, t.shape if t.name != "index" else (len(packed),)) for t in header.tensors
    ]
    data = made.content[header.data_start : entry.start]
    return compose(tensors, patchfile.METADATA).raw + data + packed


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
        _verify(_with_index(made, "norm", norm * factor * 1.1))


def test_an_exact_file_cannot_understate_its_norm(three: Three, bench: Bench) -> None:
    made = bench.extract(three.trio, layers=All(), quality=Quality.EXACT)
    norm = made.source.patch.tensors[0].norm
    assert norm is not None

    with pytest.raises(errors.NotAPatchFile, match="norm"):
        _verify(_with_index(made, "norm", norm * 0.9))


def test_values_that_are_not_finite_are_found() -> None:
    codes = struct.pack("<2f", 1.0, float("nan"))
    digest = hashlib.sha256(codes).hexdigest()
    tensor = Packed(TensorAddress("m", "w"), (2,), Kind.ADDITIVE, Codec.F32, 0, None, None, digest)
    index = patchfile.compose_index([tensor], Notes())
    header = patchfile.compose_header([tensor], len(index))

    with pytest.raises(errors.NotAPatchFile, match="NaN"):
        _verify(header.raw + codes + index)

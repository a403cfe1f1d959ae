"""Base files with odd shapes, dtypes, orders and names, and overlays of them."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import strategies as st

from service.layout.header import Header, compose
from service.layout.overlay import OverlayWriter, overlay_header
from service.names import Digest, digest_of


@dataclass(frozen=True)
class File:
    header: Header
    content: bytes

    @property
    def digest(self) -> Digest:
        return digest_of(self.content)

    def of(self, name: str) -> bytes:
        tensor = self.header.entry(name)
        return self.content[tensor.start : tensor.end]


@dataclass(frozen=True)
class Pair:
    """A base, and an overlay whose tensors differ from the base's."""

    base: File
    overlay: File


def filler(seed: str, size: int) -> bytes:
    return hashlib.shake_128(seed.encode("utf-8")).digest(size)


def write_file(header: Header, seed: str) -> File:
    out = io.BytesIO()
    writer = OverlayWriter(out, header)
    for tensor in header.tensors:
        writer.write(tensor.name, filler(f"{seed}:{tensor.name}", tensor.size_bytes))
    writer.finish()
    return File(header, out.getvalue())


_NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
_TENSORS = st.lists(
    st.tuples(_NAMES, st.sampled_from(["F64", "F32", "F16", "BF16", "I64", "U8"]), _SHAPES),
    max_size=8,
    unique_by=lambda tensor: tensor[0],
)


@st.composite
def _pairs(draw: st.DrawFn) -> Pair:
    base = compose(draw(_TENSORS), draw(st.sampled_from([None, {"format": "pt"}])))
    chosen = [tensor.name for tensor in base.tensors if draw(st.booleans())]
    overlay = overlay_header(base, chosen)
    return Pair(write_file(base, "base"), write_file(overlay, "overlay"))


@pytest.fixture(scope="session")
def pairs() -> st.SearchStrategy[Pair]:
    return _pairs()


@pytest.fixture(scope="session")
def make_file() -> Callable[..., File]:
    """A file of the given (name, dtype, shape), filled by seed."""

    def make(*tensors: tuple[str, str, tuple[int, ...]], seed: str = "base") -> File:
        return write_file(compose(tensors), seed)

    return make

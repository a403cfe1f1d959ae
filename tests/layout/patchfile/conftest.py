"""Signatures of every codec, written as patch files."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from torch import Tensor

from service.layout import patchfile
from service.layout.codecs import Codec, Kind
from service.layout.patchfile import Notes, Packed
from service.names import TensorAddress
from service.tensors import codec, raw
from tests.patchfiles import sealed

Case = tuple[str, str, Tensor, Codec]


@dataclass(frozen=True)
class Written:
    """A patch file, and what each of its tensors decodes to here."""

    content: bytes
    decoded: dict[tuple[str, str], Tensor]


@pytest.fixture(scope="session")
def write() -> Callable[[Sequence[Case], Notes], Written]:
    """Writes signatures, given as (file, name, signature, codec)."""
    return _write


def _write(cases: Sequence[Case], notes: Notes) -> Written:
    halves, codes, tensors, decoded = b"", b"", [], {}
    for path, name, signature, how in cases:
        shape = tuple(signature.shape)
        coded = codec.encode(signature, how)
        packed = codec.decode(coded, how, shape)
        halves += bytes(raw.octets(coded.halves))
        codes += bytes(raw.octets(coded.codes))
        decoded[path, name] = packed
        tensors.append(
            Packed(
                address=TensorAddress(path, name),
                shape=shape,
                kind=Kind.LOG_RATIO if name.endswith("var") else Kind.ADDITIVE,
                codec=how,
                exponent=coded.exponent,
                norm=float(signature.norm()) if signature.dim() > 1 else None,
                weight_norm=1.5 if signature.dim() > 1 else None,
                digest=hashlib.sha256(raw.octets(packed)).hexdigest(),
                deflated=coded.deflated,
            )
        )
    index = patchfile.compose_index(tensors, notes)
    header = patchfile.compose_header(tensors, len(index))
    return Written(sealed(header.raw + halves + codes + index, tensors), decoded)

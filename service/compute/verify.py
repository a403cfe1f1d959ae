"""Check a patch file that was made elsewhere: every tensor decoded, every promise held."""

import hashlib
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

import torch

from service import errors
from service.compute.sources import PatchSource, check, decoded_parts, sha256_of
from service.layout import patchfile
from service.layout.codecs import Codec
from service.layout.header import Read
from service.layout.patchfile import PatchFile, SignatureTensor
from service.tensors import raw
from service.tensors.claims import summary_of
from service.tensors.sums import inner_products

_TOLERANCE: Final = 0.01
"""Unit gain holds to the rounding of an f16 scale; what is beyond 1 % is a lie or a mistake."""


@dataclass(frozen=True)
class Verified:
    """A patch file that decodes to what it says."""

    patch: PatchFile
    summary: dict[str, Any]


def verify_patch(read: Read, size_bytes: int, device: torch.device) -> Verified:
    """Decode a whole patch file and check digests, values and norms.

    Raises `NotSafetensors`, `UnsupportedFormat` and `NotAPatchFile`, naming the tensor.
    """
    patch = patchfile.read(read, size_bytes)
    source = PatchSource(patch, read)
    digests = [_verified(source, tensor, device) for tensor in patch.tensors]
    if patch.seal is not None:
        before = sha256_of(read, size_bytes - len(patch.seal))
        if patch.seal != patchfile.seal_of(before, digests):
            raise errors.NotAPatchFile("its bytes and its tensors do not hash to its seal")
    return Verified(patch, summary_of(patch))


def _verified(source: PatchSource, tensor: SignatureTensor, device: torch.device) -> str:
    """The digest of one tensor, which is never whole in memory: a small file can claim a large one.

    Raises `NotAPatchFile`, naming the tensor.
    """
    sha256, square, is_finite = hashlib.sha256(), 0.0, True
    for part in decoded_parts(source, tensor, device):
        sha256.update(raw.octets(part))
        square += sum(inner_products(lambda q: [(q, q)], part))
        is_finite = is_finite and bool(part.isfinite().all())
    check(tensor, sha256.hexdigest())
    if not is_finite:
        raise errors.NotAPatchFile(f"tensor {str(tensor.address)!r} holds NaN or infinity")
    _check_norm(tensor, sqrt(square))
    return sha256.hexdigest()


def _check_norm(tensor: SignatureTensor, packed: float) -> None:
    """Packing at unit gain never makes a signature shorter; unpacked values keep its length.

    Norms decide how patches are balanced against each other, so a file cannot say what it likes.
    """
    if tensor.norm is None:
        return
    least = packed * (1 - _TOLERANCE) if tensor.codec in {Codec.F32, Codec.F16} else 0.0
    if not least <= tensor.norm <= packed * (1 + _TOLERANCE):
        raise errors.NotAPatchFile(
            f"tensor {str(tensor.address)!r} says that its norm is {tensor.norm:.6g}, but it "
            f"decodes to one of {packed:.6g}"
        )

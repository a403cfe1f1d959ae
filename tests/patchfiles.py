"""Patch files put together by hand."""

import hashlib
from collections.abc import Sequence

from service.layout import patchfile
from service.layout.patchfile import Packed


def sealed(before: bytes, tensors: Sequence[Packed]) -> bytes:
    """A file of all bytes before its seal, and the seal."""
    digests = [tensor.digest for tensor in tensors]
    return before + patchfile.seal_of(hashlib.sha256(before).digest(), digests)

"""What a patch file is made of: its tensors and its notes, as they are written and as read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

from service.layout.codecs import Codec, Kind, codes_bytes
from service.layout.header import Header
from service.names import ByteRange, Digest, TensorAddress

FORMAT: Final = "patchbay.rws"
VERSION: Final = "2"
METADATA: Final[Mapping[str, str]] = {"format": FORMAT, "version": VERSION}

ENTRIES: Final[Mapping[str, str]] = {"halves": "F16", "codes": "U8", "index": "U8"}
"""The entries of the safetensors file, in order, and their dtypes."""

PIN_BYTES: Final = 8
"""How much of a tensor's digest the index holds."""
SEAL_BYTES: Final = 32

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class SignatureTensor:
    """One tensor of a signature; `codes` and `halves` are where its bytes lie in the file.

    `digest` pins the f32 tensor that a build adds: the first hexadecimal digits of its sha256, all
    64 in version 1 of the format. `deflated` is the length of the DEFLATE stream that `codes` are,
    0 where they are none. `norm` and `weight_norm` are those of the unpacked signature and
    of the clean weight; None for what rides beside a kernel.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    kind: Kind
    codec: Codec
    exponent: int
    codes: ByteRange
    halves: ByteRange
    norm: float | None
    weight_norm: float | None
    digest: str
    deflated: int = 0

    @property
    def address(self) -> TensorAddress:
        """File path and tensor name on the model that it was extracted from."""
        return TensorAddress(self.path, self.name)

    @property
    def numel(self) -> int:
        """How many elements it has."""
        return prod(self.shape)


@dataclass(frozen=True)
class PatchFile:
    """A patch file whose index holds together; its codes have not been looked at.

    `seal` holds all of the file, and the whole digests of all tensors; None in version 1, which has
    these and nothing that holds its norms.
    """

    tensors: tuple[SignatureTensor, ...]
    parameters: Mapping[str, Any]
    inputs: Mapping[str, Any]
    summary: Mapping[str, Any]
    header: Header
    seal: bytes | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """The weight files that it touches, on the model that it was extracted from."""
        return tuple(dict.fromkeys(tensor.path for tensor in self.tensors))

    @property
    def size_bytes(self) -> int:
        """The size of the file."""
        return self.header.file_size

    def input_digest(self, side: str) -> Digest | None:
        """Version digest of the `clean`, `robust` or `origin` model, where the file names one."""
        model = self.inputs.get(side)
        digest = str(model.get("digest")) if isinstance(model, dict) else ""
        return Digest(digest) if _DIGEST.fullmatch(digest) else None


@dataclass(frozen=True, slots=True)
class Packed:
    """One tensor as it goes into a file, its bytes apart.

    `norm` and `weight_norm` are known together or not at all; `digest` has all of its 64 digits;
    `deflated` is the length of its DEFLATE stream, 0 where its codes go in as they are.
    """

    address: TensorAddress
    shape: tuple[int, ...]
    kind: Kind
    codec: Codec
    exponent: int
    norm: float | None
    weight_norm: float | None
    digest: str
    deflated: int = 0

    @property
    def stored_bytes(self) -> int:
        """How many bytes of `codes` it takes."""
        return self.deflated or codes_bytes(self.codec, self.shape)


@dataclass(frozen=True, slots=True)
class Notes:
    """What an index says beside its tensors: JSON objects, as they come."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)

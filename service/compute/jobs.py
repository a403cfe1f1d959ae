"""What a worker hands to its device process, and what comes back; importable without torch.

All of it pickles. Files that were made lie in the job's scratch folder, hashed already.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from service.layout.splice import Plan
from service.names import Digest


@dataclass(frozen=True, slots=True)
class WeightInput:
    """One weight file of a model version; `path` is its path in the version."""

    path: str
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ModelInput:
    """A model version to read; `digest` is the version digest."""

    digest: Digest
    reference: str
    files: tuple[WeightInput, ...]


@dataclass(frozen=True, slots=True)
class PatchInput:
    """A patch to build with, and its scale."""

    digest: Digest
    size_bytes: int
    reference: str
    scale: Decimal


@dataclass(frozen=True, slots=True)
class ExtractJob:
    """Extract a patch from a pair of models; `layers` as in a request for an extraction.

    Both orders list tensor names: the one that was asked for goes before the one that the clean
    model's checkpoint recorded.
    """

    clean: ModelInput
    robust: ModelInput
    origin: ModelInput | None
    layers: Mapping[str, Any] | str
    projection: str
    quality: str
    dry_run: bool
    forward_order: tuple[str, ...] | None = None
    recorded_order: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class BuildJob:
    """Make the overlays of a recipe; the patches in canonical order."""

    base: ModelInput
    patches: tuple[PatchInput, ...]


@dataclass(frozen=True, slots=True)
class VerifyJob:
    """Decode a patch file that was made elsewhere, in full."""

    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class DigestJob:
    """Hash files that are in no blob of their own; `plans` by path."""

    plans: Mapping[str, Plan]


Job = ExtractJob | BuildJob | VerifyJob | DigestJob


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A file on the worker's disk that is to become a blob."""

    path: Path
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class MadeSignature:
    """What a patch file says of itself; `tensors` holds [path, name, shape, kind] each.

    `inputs` names the models that it was extracted from by version digest, under `clean`, `robust`
    and `origin`, as far as the file says.
    """

    tensors: list[list[Any]]
    summary: Mapping[str, Any]
    inputs: Mapping[str, Digest]


@dataclass(frozen=True, slots=True)
class ExtractMade:
    """An extraction's files; a dry run has a profile and no patch."""

    patch: MadeFile | None
    signature: MadeSignature | None
    profile: MadeFile
    summary: Mapping[str, Any]

    @property
    def files(self) -> tuple[MadeFile, ...]:
        """What is to be stored."""
        return (self.profile,) if self.patch is None else (self.patch, self.profile)


@dataclass(frozen=True, slots=True)
class MadeOverlay:
    """The overlay of one weight file; `header` is its safetensors header, byte for byte."""

    path: str
    file: MadeFile
    header: bytes


@dataclass(frozen=True, slots=True)
class BuildMade:
    """A build's overlays, one for each weight file that changes."""

    overlays: tuple[MadeOverlay, ...]

    @property
    def files(self) -> tuple[MadeFile, ...]:
        """What is to be stored."""
        return tuple(overlay.file for overlay in self.overlays)


@dataclass(frozen=True, slots=True)
class VerifyMade:
    """What a patch file holds, once every tensor of it was decoded."""

    signature: MadeSignature

    @property
    def files(self) -> tuple[MadeFile, ...]:
        """Nothing: the file is a blob already."""
        return ()


@dataclass(frozen=True, slots=True)
class DigestMade:
    """The sha256 of each file by path."""

    digests: Mapping[str, Digest]

    @property
    def files(self) -> tuple[MadeFile, ...]:
        """Nothing: digests alone were computed."""
        return ()


Made = ExtractMade | BuildMade | VerifyMade | DigestMade

"""Patches from pairs of models, and patch files made elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.compute.jobs.files import MadeFile, ModelInput
from service.names import Digest


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
class ExtractManyJob:
    """As `first`, and the same of `further` robust models; what they share is read once."""

    first: ExtractJob
    further: tuple[ModelInput, ...]


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
class ExtractManyMade:
    """Extractions in the order of their robust models."""

    extractions: tuple[ExtractMade, ...]

    @property
    def files(self) -> tuple[MadeFile, ...]:
        """What is to be stored."""
        return tuple(file for made in self.extractions for file in made.files)


@dataclass(frozen=True, slots=True)
class VerifyJob:
    """Decode a patch file that was made elsewhere, in full."""

    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class VerifyMade:
    """What a patch file holds, once every tensor of it was decoded."""

    signature: MadeSignature

    @property
    def files(self) -> tuple[MadeFile, ...]:
        """Nothing: the file is a blob already."""
        return ()

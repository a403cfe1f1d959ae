"""Overlays of recipes, and the digests of the files that they make."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from service.compute.jobs.files import MadeFile, ModelInput
from service.errors import PatchbayError
from service.layout.splice import Plan
from service.names import Digest


@dataclass(frozen=True, slots=True)
class PatchInput:
    """A patch to build with, and its scale.

    `is_checked` where the file of this digest was decoded in full before, on such a device, and
    found to be what it says.
    """

    digest: Digest
    size_bytes: int
    reference: str
    scale: Decimal
    is_checked: bool = False


@dataclass(frozen=True, slots=True)
class BuildJob:
    """Make the overlays of a recipe; the patches in canonical order."""

    base: ModelInput
    patches: tuple[PatchInput, ...]


@dataclass(frozen=True, slots=True)
class SweepJob:
    """Make the overlays of several recipes on one base; patches in canonical order."""

    base: ModelInput
    recipes: tuple[tuple[PatchInput, ...], ...]


@dataclass(frozen=True, slots=True)
class Batches:
    """Jobs that are carried out one after the other, since all that they make is too much at once.

    A device is given each of them by itself.
    """

    jobs: tuple[Any, ...]


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
class SweepMade:
    """The overlays of each recipe of a sweep, or why it could not be carried out."""

    recipes: tuple[BuildMade | PatchbayError, ...]

    @property
    def files(self) -> tuple[MadeFile, ...]:
        """What is to be stored: what is equal, once."""
        made = [file for each in self.recipes if isinstance(each, BuildMade) for file in each.files]
        return tuple({file.digest: file for file in made}.values())


@dataclass(frozen=True, slots=True)
class BatchesMade:
    """What each of several jobs made, in their order."""

    made: tuple[Any, ...]

    @property
    def files(self) -> tuple[MadeFile, ...]:
        """What is to be stored."""
        return tuple(file for each in self.made for file in each.files)


@dataclass(frozen=True, slots=True)
class DigestJob:
    """Hash files that are in no blob of their own; `plans` by path, `sizes` of what they read."""

    plans: Mapping[str, Plan]
    sizes: Mapping[Digest, int]


@dataclass(frozen=True, slots=True)
class DigestMade:
    """The sha256 of each file by path."""

    digests: Mapping[str, Digest]

    @property
    def files(self) -> tuple[MadeFile, ...]:
        """Nothing: digests alone were computed."""
        return ()

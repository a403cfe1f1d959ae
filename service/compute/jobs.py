"""What a worker hands to its device process, and what comes back; importable without torch.

All of it pickles. Files that were made lie in the job's scratch folder, hashed already.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from service.errors import PatchbayError
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
class ExtractManyJob:
    """As `first`, and the same of `further` robust models; what they share is read once."""

    first: ExtractJob
    further: tuple[ModelInput, ...]


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
class VerifyJob:
    """Decode a patch file that was made elsewhere, in full."""

    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class DigestJob:
    """Hash files that are in no blob of their own; `plans` by path."""

    plans: Mapping[str, Plan]


@dataclass(frozen=True, slots=True)
class SignatureInput:
    """A patch file to compare; `id` is what the answer calls it by."""

    id: int
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SignatureMeasures:
    """What the catalogue keeps of a signature to compare it by: `tensors.similarity.Measured`.

    Little endian: `keys` i64, `energies` f64, one a kernel; `sketch` f16.
    """

    keys: bytes
    energies: bytes
    sketch: bytes
    length: float


@dataclass(frozen=True, slots=True)
class KnownSignature:
    """A signature of the catalogue; `floor` is what a new neighbour must exceed to matter."""

    file: SignatureInput
    measures: SignatureMeasures
    floor: float


@dataclass(frozen=True, slots=True)
class IndexJob:
    """Measure new signatures and find the `kept` nearest of each, and whom they are near to."""

    new: tuple[SignatureInput, ...]
    known: tuple[KnownSignature, ...]
    kept: int


@dataclass(frozen=True, slots=True)
class CompareJob:
    """Compare patch files, each with each, kernel by kernel."""

    patches: tuple[SignatureInput, ...]


@dataclass(frozen=True, slots=True)
class IdentifyJob:
    """Compare an unknown signature with all that are known: a patch file, or one to extract."""

    unknown: SignatureInput | ExtractJob
    known: tuple[KnownSignature, ...]


@dataclass(frozen=True, slots=True)
class CheckpointInput:
    """A PyTorch checkpoint, and the path that its weights will have in the version."""

    path: str
    target: str
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class IndexInput:
    """The index of a sharded set of checkpoints, and the path of the one that replaces it."""

    path: str
    target: str
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ConvertJob:
    """Convert a version's PyTorch checkpoints to safetensors."""

    checkpoints: tuple[CheckpointInput, ...]
    indexes: tuple[IndexInput, ...]


Job = (
    ConvertJob
    | ExtractJob
    | ExtractManyJob
    | BuildJob
    | SweepJob
    | VerifyJob
    | DigestJob
    | IndexJob
    | CompareJob
    | IdentifyJob
)


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
class ExtractManyMade:
    """Extractions in the order of their robust models."""

    extractions: tuple[ExtractMade, ...]

    @property
    def files(self) -> tuple[MadeFile, ...]:
        """What is to be stored."""
        return tuple(file for made in self.extractions for file in made.files)


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


@dataclass(frozen=True, slots=True)
class Likeness:
    """How like signature `other` is to signature `one`.

    `error` is one standard deviation of an estimated cosine, 0 of an exact one; the shares are the
    parts of either's energy that lie in kernels which both hold.
    """

    one: int
    other: int
    cosine: float
    error: float
    own_share: float
    other_share: float

    @property
    def strength(self) -> float:
        """How far from zero the cosine certainly is: what neighbours are chosen by."""
        return max(0.0, abs(self.cosine) - 2 * self.error)


@dataclass(frozen=True, slots=True)
class _WithoutFiles:
    @property
    def files(self) -> tuple[MadeFile, ...]:
        """Nothing: all that was found is recorded."""
        return ()


@dataclass(frozen=True, slots=True)
class IndexMade(_WithoutFiles):
    """New signatures by id, why some could not be read, and who is near whom, both ways."""

    measures: Mapping[int, SignatureMeasures]
    unreadable: Mapping[int, str]
    likenesses: tuple[Likeness, ...]


@dataclass(frozen=True, slots=True)
class CompareMade(_WithoutFiles):
    """What `compute.compare.compare` found."""

    comparison: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class IdentifyMade(_WithoutFiles):
    """Every known signature that shares a kernel with the unknown one, which is called 0."""

    likenesses: tuple[Likeness, ...]


@dataclass(frozen=True, slots=True)
class ConvertedFile:
    """What a checkpoint became; `header` is the safetensors header, byte for byte.

    `order` lists the tensors as the checkpoint did, `tied` further names of shared ones with the
    name that was kept. `guards` says what the kernel kept from the converter: `network`, `files`.
    """

    source: str
    source_digest: Digest
    path: str
    file: MadeFile
    header: bytes
    order: tuple[str, ...]
    tied: Mapping[str, str]
    left_out: tuple[str, ...]
    guards: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MadeIndex:
    """The index of a set of converted shards."""

    path: str
    file: MadeFile


@dataclass(frozen=True, slots=True)
class ConvertMade:
    """What a version's checkpoints became."""

    weights: tuple[ConvertedFile, ...]
    indexes: tuple[MadeIndex, ...]

    @property
    def files(self) -> tuple[MadeFile, ...]:
        """What is to be stored."""
        return (*(each.file for each in self.weights), *(each.file for each in self.indexes))


Made = (
    ConvertMade
    | ExtractMade
    | ExtractManyMade
    | BuildMade
    | SweepMade
    | VerifyMade
    | DigestMade
    | IndexMade
    | CompareMade
    | IdentifyMade
)

"""Signatures beside each other, and beside the whole catalogue."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.compute.jobs.extractions import ExtractJob
from service.compute.jobs.files import WithoutFiles
from service.names import Digest


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
class IndexMade(WithoutFiles):
    """New signatures by id, why some could not be read, and who is near whom, both ways."""

    measures: Mapping[int, SignatureMeasures]
    unreadable: Mapping[int, str]
    likenesses: tuple[Likeness, ...]


@dataclass(frozen=True, slots=True)
class CompareMade(WithoutFiles):
    """What `compute.compare.compare` found."""

    comparison: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class IdentifyMade(WithoutFiles):
    """Every known signature that shares a kernel with the unknown one, which is called 0."""

    likenesses: tuple[Likeness, ...]

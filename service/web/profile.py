"""What an extraction found, as far as a page draws it.

A profile may have been made elsewhere, so it is hostile until it is read into these values; numbers
that a summary lacks are None.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service import errors
from service.blobs.store import BlobStore
from service.names import Digest

MAX_BYTES: Final = 8 * 2**20
MAX_KERNELS: Final = 5000
"""What is longer is offered as a file; a picture of it would have less than a pixel a layer."""

QUALITIES: Final = ("exact", "high", "standard", "small", "tiny")
MAX_CHOICES: Final = 200
NOISE_MARGIN: Final = 3
"""A change of fewer times the rounding of both models is mostly that rounding."""

Text = Annotated[str, Field(max_length=1000)]
Measure = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1.001, allow_inf_nan=False)]
Signed = Annotated[float, Field(allow_inf_nan=False)]


class Kernel(BaseModel):
    """One kernel of the models; what speaks of packing is None where it was not kept."""

    name: Text
    path: Text
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=16)]
    numel: Annotated[int, Field(ge=0)]
    relative_norm: Measure
    energy_share: Share
    cosine_to_standard: Signed
    kept: bool
    noise_floor: Measure | None = None
    """What the rounding of both models alone would make of `relative_norm`."""
    codec: Text | None = None
    gain: Signed | None = None
    cosine: Signed | None = None
    relative_error: Measure | None = None
    noise_to_weight: Measure | None = None

    @property
    def is_quiet(self) -> bool:
        """Whether its change is hardly above the rounding of the models."""
        floor = self.noise_floor or 0.0
        return 0 < self.relative_norm < NOISE_MARGIN * floor


class Skipped(BaseModel):
    """A tensor that takes no part, and why."""

    path: Text
    name: Text
    reason: Text


class Profile(BaseModel):
    """Every kernel, in forward order."""

    order: Text
    kernels: Annotated[list[Kernel], Field(min_length=1, max_length=MAX_KERNELS)]
    skipped: list[Skipped] = []
    unattached: list[Text] = []

    @property
    def kept(self) -> list[Kernel]:
        """The kernels that the patch holds."""
        return [kernel for kernel in self.kernels if kernel.kept]

    @property
    def has_parts(self) -> bool:
        """Whether the kernels lie in several files, so that a name alone may be ambiguous."""
        return len({kernel.path for kernel in self.kernels}) > 1


class Choice(BaseModel):
    """What one choice of layers would keep of a pair, as a dry run tells it."""

    layers: Any
    kernels: Annotated[int, Field(ge=0)]
    parameters: Annotated[int, Field(ge=0)]
    energy: Share
    estimated_bytes: dict[str, Annotated[int, Field(ge=0)]]

    @property
    def sizes(self) -> dict[str, int]:
        """`estimated_bytes` of the qualities that are known, the best first."""
        return _by_quality(self.estimated_bytes)

    @property
    def words(self) -> str:
        """The choice in words."""
        return in_words(self.layers)


class Summary(BaseModel):
    """What a patch version says of itself in numbers."""

    model_config = ConfigDict(extra="ignore")

    quality: str | None = None
    projection: str | None = None
    layers: Any = None
    kernels: int | None = None
    kernels_kept: int | None = None
    parameters: int | None = None
    parameters_kept: int | None = None
    base_bytes: int | None = None
    energy_kept: float | None = None
    gain: float | None = None
    cosine: float | None = None
    relative_error: float | None = None
    noise_to_weight: float | None = None
    estimated_bytes: dict[str, int] = {}
    warnings: list[str] = []
    choices: Annotated[list[Choice], Field(max_length=MAX_CHOICES)] = []

    @property
    def sizes(self) -> dict[str, int]:
        """`estimated_bytes` of the qualities that are known, the best first."""
        return _by_quality(self.estimated_bytes)

    @property
    def choice(self) -> str:
        """Which layers were asked for, in words."""
        return in_words(self.layers)


def _by_quality(sizes: Mapping[str, int]) -> dict[str, int]:
    return {quality: sizes[quality] for quality in QUALITIES if quality in sizes}


def in_words(layers: Any) -> str:
    """A choice of layers, as requests write it, in words; nothing where it is none."""
    match layers:
        case {"energy": float() | int() as share}:
            return f"the densest, up to {share:.0%} of the energy"
        case {"first": count}:
            return f"the first {count} in forward order"
        case {"names": [*globs]}:
            return "by name: " + ", ".join(str(glob) for glob in globs)
        case "all":
            return "all"
        case _:
            return ""


def summary(stored: Mapping[str, Any]) -> Summary:
    """Read a version's summary; what is not of the expected form counts as not said."""
    try:
        return Summary.model_validate(stored)
    except ValidationError as error:
        wrong = {str(one["loc"][0]) for one in error.errors()}
        return Summary.model_validate({k: v for k, v in stored.items() if k not in wrong})


def read(store: BlobStore, digest: str, size_bytes: int) -> Profile | None:
    """Read a profile from the store; None where it is too long, not a profile, or out of reach."""
    if size_bytes > MAX_BYTES:
        return None
    try:
        return Profile.model_validate_json(store.read(Digest(digest), 0, size_bytes))
    except (ValidationError, errors.BlobNotFound, errors.StoreUnavailable):
        return None  # the page says so, and leads to the file

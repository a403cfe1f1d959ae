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
    codec: Text | None = None
    gain: Signed | None = None
    cosine: Signed | None = None
    relative_error: Measure | None = None
    noise_to_weight: Measure | None = None


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

    @property
    def choice(self) -> str:
        """Which layers were asked for, in words."""
        match self.layers:
            case {"energy": share}:
                return f"the densest, up to {float(share):.0%} of the energy"
            case {"first": count}:
                return f"the first {count} in forward order"
            case {"names": globs}:
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

"""The profile of an extraction: what was found in every kernel, and what the patch keeps of it."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Final

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class KernelProfile:
    """One kernel; what speaks of packing is None where it was not kept.

    `relative_norm` is ||R|| / ||W||, `cosine_to_standard` that of d_rob to d_std, `energy_share`
    the part of the model's ||R||^2 / ||W||^2, `energy_density` that energy an element,
    `noise_floor` what rounding of the models to their dtypes would make of `relative_norm`.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    numel: int
    relative_norm: float
    energy_share: float
    energy_density: float
    noise_floor: float
    cosine_to_standard: float
    kept: bool
    codec: str | None = None
    gain: float | None = None
    cosine: float | None = None
    relative_error: float | None = None
    noise_to_weight: float | None = None


@dataclass(frozen=True, slots=True)
class RiderProfile:
    """A bias or a part of a norm that rides along; `zeroed` counts ratios that were set to 0."""

    path: str
    name: str
    shape: tuple[int, ...]
    kind: str
    zeroed: int = 0


@dataclass(frozen=True, slots=True)
class Skipped:
    """A tensor that takes no part, and why."""

    path: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the model; `energy_kept` predicts how much of the robustness comes back.

    gain, cosine, relative error and noise weigh each kernel by 1 / ||W||^2; None in a dry run.
    """

    kernels: int
    kernels_kept: int
    parameters: int
    parameters_kept: int
    base_bytes: int
    energy_kept: float
    gain: float | None = None
    cosine: float | None = None
    relative_error: float | None = None
    noise_to_weight: float | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What would be kept of a pair by one choice of `layers`, written as in a request.

    `energy` is the share of the whole change, `estimated_bytes` the patch file's size by quality.
    """

    layers: object
    kernels: int
    parameters: int
    energy: float
    estimated_bytes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Profile:
    """A whole extraction; kernels stand in forward order.

    `projection` is the form that was used: `origin`, `pair` or `none`; `order` says where the
    forward order is from: `given`, `recorded` or `by name`; `estimated_bytes` is the patch file's
    size by quality, `predicted_loss` what packing may cost in points of accuracy. A dry run knows
    `choices` and has packed nothing.
    """

    projection: str
    quality: str
    layers: object
    order: str
    totals: Totals
    kernels: tuple[KernelProfile, ...]
    riders: tuple[RiderProfile, ...]
    unattached: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    warnings: tuple[str, ...]
    estimated_bytes: dict[str, int] = field(default_factory=dict)
    predicted_loss: float | None = None
    choices: tuple[Choice, ...] = ()
    version: int = VERSION

    def to_json(self) -> bytes:
        """One JSON object, UTF-8; equal profiles give equal bytes."""
        value = dataclasses.asdict(self)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8")

"""What an extraction reports: totals, profile, warnings, the notes in the patch file's index."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import hypot, sqrt
from typing import Any, Final

from service.compute.choices import choices
from service.compute.estimates import estimated_bytes
from service.compute.measure import Plan
from service.layout.codecs import Codec
from service.layout.patchfile import Notes
from service.names import TensorAddress
from service.tensors import selection
from service.tensors.extraction import Fidelity
from service.tensors.profile import (
    KernelProfile,
    Profile,
    RiderProfile,
    Skipped,
    Totals,
)
from service.tensors.selection import Measured

LARGE_SHARE: Final = 0.10
"""A patch above this share of its base is warned of."""
ENOUGH_ENERGY: Final = selection.DEFAULT_ENERGY
"""Energy kept from which 0.9 of the robustness came back in every measurement."""
GAIN_TOLERANCE: Final = 0.02
LOUD_LOSS: Final = 1.0
"""Points of accuracy from which the predicted cost of packing is warned of: nets whose packing was
predicted to cost half a point or a little more lost nothing that could be measured."""
ROUNDING: Final[Mapping[str, float]] = {"BF16": 1.7e-3, "F16": 2.1e-4, "F32": 2.6e-8}
"""The size of what rounding to a dtype does to a weight, as a share of ||W||."""
FLOOR_MARGIN: Final = 3
"""A change of fewer times the rounding of both models is mostly that rounding."""

_NAMED = 10


@dataclass(frozen=True)
class PackedParts:
    """What packing found out; empty in a dry run."""

    kernels: Mapping[TensorAddress, tuple[Codec, Fidelity]]
    riders: tuple[RiderProfile, ...]

    @property
    def fidelity(self) -> Fidelity | None:
        """That of all kernels together, each over its own ||W||."""
        whole = Fidelity(0.0, 0.0, 0.0)
        for _, fidelity in self.kernels.values():
            whole += fidelity
        return whole if self.kernels else None


NOTHING_PACKED: Final = PackedParts({}, ())


def totals(plan: Plan, parts: PackedParts) -> Totals:
    """Sum up over the model."""
    energy = sum(kernel.relative_energy for kernel in plan.measured)
    kept = sum(kernel.relative_energy for kernel in plan.kept)
    clean = plan.pairing.trio.clean
    fidelity = parts.fidelity
    return Totals(
        kernels=len(plan.measured),
        kernels_kept=len(plan.kept),
        parameters=sum(t.numel for file in clean.files.values() for t in file.header.tensors),
        parameters_kept=sum(kernel.layer.numel for kernel in plan.kept),
        base_bytes=clean.size_bytes,
        energy_kept=kept / energy if energy > 0 else 0.0,
        **(fidelity.fields() if fidelity else {}),
    )


def notes(plan: Plan, whole: Totals) -> Notes:
    """What the index of the patch file says beside its tensors."""
    models = {
        side: {"digest": model.digest, "reference": model.reference}
        for side, model in plan.pairing.trio.named.items()
    }
    return Notes(parameters(plan), models, rounded(whole))


def parameters(plan: Plan) -> dict[str, Any]:
    """What was asked for, and the form that it came to."""
    return {
        "projection": plan.form,
        "quality": str(plan.options.quality),
        "layers": selection.layers_json(plan.options.layers),
    }


def rounded(whole: Totals) -> dict[str, Any]:
    """The totals that are known, to six digits: more would only make the index longer."""
    values = {name: getattr(whole, name) for name in Totals.__slots__}
    return {
        name: float(f"{value:.6g}") if isinstance(value, float) else value
        for name, value in values.items()
        if value is not None
    }


# ── the profile ──────────────────────────────────────────────────────────────────────────────


def profile(plan: Plan, parts: PackedParts, whole: Totals, size_bytes: int | None) -> Profile:
    """Put together what was found; `size_bytes` None: nothing was written, take the estimate."""
    told = notes(plan, whole)
    estimates = estimated_bytes(plan, told)
    size = estimates[plan.options.quality] if size_bytes is None else size_bytes
    return Profile(
        **parameters(plan),
        order=plan.options.order_origin,
        totals=whole,
        kernels=_kernels(plan, parts),
        riders=parts.riders,
        unattached=tuple(str(norm.module) for norm in plan.attached.unattached),
        skipped=(*plan.pairing.skipped, *_left_out(plan)),
        warnings=tuple(_warnings(plan, parts, whole, size)),
        estimated_bytes=estimates,
        predicted_loss=None if parts.fidelity is None else parts.fidelity.predicted_loss,
        choices=choices(plan, told) if size_bytes is None else (),
    )


def _kernels(plan: Plan, parts: PackedParts) -> tuple[KernelProfile, ...]:
    energy = sum(each.relative_energy for each in plan.measured)
    kept = set(plan.kept)
    return tuple(
        _kernel(plan, kernel, parts, energy=energy, kept=kernel in kept) for kernel in plan.measured
    )


def _kernel(
    plan: Plan, kernel: Measured, parts: PackedParts, *, energy: float, kept: bool
) -> KernelProfile:
    how, fidelity = parts.kernels.get(kernel.layer.address, (None, None))
    return KernelProfile(
        path=kernel.layer.address.path,
        name=kernel.layer.name,
        shape=kernel.layer.shape,
        numel=kernel.layer.numel,
        relative_norm=sqrt(kernel.relative_energy),
        energy_share=kernel.relative_energy / energy if energy > 0 else 0.0,
        noise_floor=noise_floor(plan, kernel),
        energy_density=kernel.density,
        cosine_to_standard=kernel.cosine,
        kept=kept,
        codec=None if how is None else str(how),
        **(fidelity.fields() if fidelity else {}),
    )


def _left_out(plan: Plan) -> Iterator[Skipped]:
    for kernel in plan.measured:
        if kernel.weight == 0 and kernel.energy > 0 and kernel not in plan.kept:
            address = kernel.layer.address
            yield Skipped(address.path, address.name, "its clean weight is zero")


# ── warnings ─────────────────────────────────────────────────────────────────────────────────


def _warnings(plan: Plan, parts: PackedParts, whole: Totals, size: int) -> Iterator[str]:
    yield from _norm_warnings(plan, parts)
    if size > LARGE_SHARE * whole.base_bytes:
        share = size / whole.base_bytes
        yield f"the patch takes {share:.0%} of its base; keep fewer layers or a lower quality"
    if whole.energy_kept < ENOUGH_ENERGY - 1e-9:
        yield (
            f"the kept layers hold {whole.energy_kept:.0%} of the change; below "
            f"{ENOUGH_ENERGY:.0%} less of the robustness comes back"
        )
    if quiet := _quiet(plan):
        yield (
            f"in {_listed(quiet)} the change is hardly above the rounding of the models' dtype; "
            "extract from F32 models where there are any"
        )
    for address, (_, fidelity) in parts.kernels.items():
        if abs(fidelity.gain - 1) > GAIN_TOLERANCE:
            yield f"packing changes the size of {str(address)!r} by {fidelity.gain - 1:+.1%}"
    loss = parts.fidelity.predicted_loss if parts.fidelity else 0.0
    if loss > LOUD_LOSS:
        yield (
            f"packing may cost some {loss:.1f} points of accuracy, judged by its noise of "
            f"{whole.noise_to_weight:.0%} of the weights; take a higher quality"
        )


def _norm_warnings(plan: Plan, parts: PackedParts) -> Iterator[str]:
    loose = [str(norm.module) for norm in plan.attached.unattached if norm.has_statistics]
    if loose:
        yield (
            f"no kernel was found for the batch norm {_listed(loose)}, which stays as it is; "
            "without its norm a patch loses most of its effect: give the forward order"
        )
    plain = [str(norm.module) for norm in plan.attached.unattached if not norm.has_statistics]
    if plain:
        yield f"no kernel was found for the norm {_listed(plain)}, which stays as it is"
    zeroed = [rider.name for rider in parts.riders if rider.zeroed]
    if zeroed:
        yield f"{_listed(zeroed)} holds variances that are zero or not finite: left as they are"


def _quiet(plan: Plan) -> list[str]:
    return [
        str(kernel.layer.address)
        for kernel in plan.kept
        if 0 < sqrt(kernel.relative_energy) < FLOOR_MARGIN * noise_floor(plan, kernel)
    ]


def quietest(plan: Plan) -> dict[str, Any] | None:
    """The kept kernel whose change is nearest to rounding; None where no dtype rounds."""
    some = [kernel for kernel in plan.kept if kernel.relative_energy > 0]
    some = [kernel for kernel in some if noise_floor(plan, kernel) > 0]
    if not some:
        return None
    found = min(some, key=lambda kernel: sqrt(kernel.relative_energy) / noise_floor(plan, kernel))
    return {
        "tensor": str(found.layer.address),
        "relative_norm": float(f"{sqrt(found.relative_energy):.6g}"),
        "noise_floor": float(f"{noise_floor(plan, found):.6g}"),
    }


def noise_floor(plan: Plan, kernel: Measured) -> float:
    """What rounding of the two models alone would make ||R|| / ||W||."""
    dtypes = plan.pairing.dtypes(kernel.layer)
    return hypot(*(ROUNDING.get(dtypes[side], 0.0) for side in ("clean", "robust")))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more

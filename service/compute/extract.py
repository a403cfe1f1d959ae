"""Extract a patch from a pair of models: one walk to measure, one to pack what is kept."""

from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any, Final

import torch

from service.compute import findings
from service.compute.findings import NOTHING_PACKED, PackedParts
from service.compute.measure import ExtractOptions, NonFinite, Plan, Progress, measure
from service.compute.packing import PatchWriter
from service.compute.pairing import Trio
from service.layout.codecs import Codec, Kind
from service.names import Digest, TensorAddress, digest_of
from service.tensors import extraction, projection, selection
from service.tensors.extraction import Fidelity
from service.tensors.layers import Layer
from service.tensors.profile import Profile, RiderProfile
from service.tensors.selection import Measured

_MEASURING: Final = 0.8
"""The share of the work that the first walk takes, for the sake of progress."""


@dataclass(frozen=True)
class ExtractResult:
    """What was written; digest and size are None after a dry run, which writes no patch.

    `summary` is what lists and pages show: parameters, totals, sizes by quality, warnings.
    """

    digest: Digest | None
    size_bytes: int | None
    profile_digest: Digest
    profile_size: int
    summary: dict[str, Any]


def extract(
    trio: Trio,
    options: ExtractOptions,
    out_path: Path,
    profile_path: Path,
    *,
    device: torch.device,
    progress: Progress,
) -> ExtractResult:
    """Write the patch file of a pair, and its profile.

    Raises `ModelsDiffer`, `NonFiniteWeights`, `NothingToExtract`, `SignatureTooLarge`.
    """
    plan = measure(trio, options, device, lambda done: progress(_MEASURING * done))
    with PatchWriter(out_path) as writer:
        parts = _pack(plan, writer, device, progress)
        whole = findings.totals(plan, parts)
        digest, size_bytes = writer.finish(findings.notes(plan, whole))
    report = findings.profile(plan, parts, whole, size_bytes)
    return _record(plan, report, profile_path, digest, size_bytes)


def dry_run(
    trio: Trio,
    options: ExtractOptions,
    profile_path: Path,
    *,
    device: torch.device,
    progress: Progress,
) -> ExtractResult:
    """Write the profile alone: which kernels would be kept, and the size by quality.

    Raises what `extract` raises.
    """
    plan = measure(trio, options, device, progress)
    whole = findings.totals(plan, NOTHING_PACKED)
    report = findings.profile(plan, NOTHING_PACKED, whole, None)
    return _record(plan, report, profile_path, None, None)


def _record(
    plan: Plan, report: Profile, path: Path, digest: Digest | None, size_bytes: int | None
) -> ExtractResult:
    content = report.to_json()
    path.write_bytes(content)
    summary = {
        **findings.parameters(plan),
        **findings.rounded(report.totals),
        "size_bytes": size_bytes,
        "estimated_bytes": report.estimated_bytes,
        "warnings": list(report.warnings),
    }
    return ExtractResult(digest, size_bytes, digest_of(content), len(content), summary)


# ── the second walk ──────────────────────────────────────────────────────────────────────────


def _pack(plan: Plan, writer: PatchWriter, device: torch.device, progress: Progress) -> PackedParts:
    riders = plan.riders
    steps = len(plan.kept) + len(riders)
    kernels: dict[TensorAddress, tuple[Codec, Fidelity]] = {}
    ridden: list[RiderProfile] = []
    broken = NonFinite()
    for step, kernel in enumerate(plan.kept):
        if kernel.energy > 0:
            kernels[kernel.layer.address] = _pack_kernel(plan, kernel, writer, device)
        progress(_MEASURING + (1 - _MEASURING) * (step + 1) / steps)
    for rider in riders:
        ridden += _pack_rider(plan, rider, writer, device, broken)
    broken.refuse()
    progress(1.0)
    return PackedParts(kernels, tuple(ridden))


def _pack_kernel(
    plan: Plan, kernel: Measured, writer: PatchWriter, device: torch.device
) -> tuple[Codec, Fidelity]:
    tensors = plan.pairing.load(kernel.layer, device)
    signature = projection.residual(
        tensors["clean"], tensors["robust"], tensors.get("origin"), kernel.coefficient
    )
    how = selection.kernel_codec(plan.options.quality, kernel.layer.numel)
    norms = sqrt(kernel.energy), sqrt(kernel.weight)
    packed = writer.put(kernel.layer, Kind.ADDITIVE, how, signature, norms)
    return how, extraction.compare(signature, packed, kernel.weight or 1.0)


def _pack_rider(
    plan: Plan, rider: Layer, writer: PatchWriter, device: torch.device, broken: NonFinite
) -> list[RiderProfile]:
    tensors = plan.pairing.load(rider, device)
    pair = {side: tensors[side] for side in ("clean", "robust")}  # no projection: no origin
    kind, zeroed = Kind.ADDITIVE, 0
    if rider.name.endswith("running_var"):
        kind = Kind.LOG_RATIO
        signature, zeroed = extraction.log_ratio(**pair)
    elif broken.note(rider, pair):
        return []
    else:
        signature = extraction.difference(**pair)
    if bool((signature != 0).any()):
        writer.put(rider, kind, selection.rider_codec(plan.options.quality), signature, None)
    return [RiderProfile(rider.address.path, rider.name, rider.shape, str(kind), zeroed)]

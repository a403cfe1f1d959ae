"""Extract patches from models: one walk to measure, one to pack what is kept.

Robust models that share their clean model are measured in one walk, which reads that one once. The
second walk reads the kept kernels alone, and cuts each kernel's signature from chunks.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Any, Final

import torch

from service.compute import findings, packing
from service.compute.chunks import ChunkReader, chunks_of
from service.compute.crew import Crew, crew
from service.compute.findings import NOTHING_PACKED, PackedParts
from service.compute.measure import (
    ExtractOptions,
    NonFinite,
    Plan,
    Progress,
    measure,
    not_finite,
)
from service.compute.packing import PatchWriter, Ready
from service.compute.pairing import Family, Trio
from service.layout.codecs import Codec, Kind
from service.names import Digest, TensorAddress, digest_of
from service.tensors import extraction, projection, selection
from service.tensors.extraction import Fidelity
from service.tensors.layers import Layer
from service.tensors.profile import Choice, Profile, RiderProfile
from service.tensors.selection import Measured

_MEASURING: Final = 0.5
"""The share of the work that the first walk takes, for the sake of progress."""

PACKING_BYTES: Final = 192 * 2**20
"""What the kernels being packed may take of memory together; a larger one is packed alone."""
_SHOWN_FIRST: Final = 32
_BYTES_AN_ELEMENT: Final = 10
"""R and the decoded R in f32, the codes, and what is made of them on the way."""


@dataclass(frozen=True)
class Outputs:
    """Where the files of one extraction are to lie; a dry run writes no patch."""

    patch: Path | None
    profile: Path


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
    """Write the patch file of a pair, and its profile; raises what `extract_all` raises."""
    outs = [Outputs(out_path, profile_path)]
    [result] = extract_all(trio.family, options, outs, device=device, progress=progress)
    return result


def dry_run(
    trio: Trio,
    options: ExtractOptions,
    profile_path: Path,
    *,
    device: torch.device,
    progress: Progress,
) -> ExtractResult:
    """Write the profile alone: what each choice of kernels would keep, and its size by quality.

    Raises what `extract_all` raises.
    """
    outs = [Outputs(None, profile_path)]
    [result] = extract_all(trio.family, options, outs, device=device, progress=progress)
    return result


def extract_all(
    family: Family,
    options: ExtractOptions,
    outs: Sequence[Outputs],
    *,
    device: torch.device,
    progress: Progress,
) -> list[ExtractResult]:
    """Write the patch file and the profile of each robust model of a family.

    Raises `ModelsDiffer`, `NonFiniteWeights`, `NothingToExtract`, `SignatureTooLarge`, `BadRequest`
    for a forward order that names what is not there.
    """
    measuring = _MEASURING if any(out.patch for out in outs) else 1.0
    with crew(device) as hands:
        plans = measure(family, options, device, hands, lambda done: progress(measuring * done))
        results = []
        for number, (plan, out) in enumerate(zip(plans, outs, strict=True)):

            def told(done: float, number: int = number) -> None:
                progress(measuring + (1 - measuring) * (number + done) / len(plans))

            if out.patch is None:
                results.append(_measured_alone(plan, out.profile))
            else:
                packer = _Packer(plan, device, hands, told)
                results.append(_packed(plan, packer, out.patch, out.profile))
    progress(1.0)
    return results


def _measured_alone(plan: Plan, profile_path: Path) -> ExtractResult:
    whole = findings.totals(plan, NOTHING_PACKED)
    report = findings.profile(plan, NOTHING_PACKED, whole, None)
    return _reported(plan, report, profile_path, None, None)


def _packed(plan: Plan, packer: "_Packer", path: Path, profile_path: Path) -> ExtractResult:
    with PatchWriter(path) as writer:
        parts = packer.pack(writer)
        whole = findings.totals(plan, parts)
        digest, size_bytes = writer.finish(findings.notes(plan, whole))
    report = findings.profile(plan, parts, whole, size_bytes)
    return _reported(plan, report, profile_path, digest, size_bytes)


def _reported(
    plan: Plan, report: Profile, path: Path, digest: Digest | None, size_bytes: int | None
) -> ExtractResult:
    content = report.to_json()
    path.write_bytes(content)
    summary = {
        **findings.parameters(plan),
        **findings.rounded(report.totals),
        "order": report.order,
        "quietest": findings.quietest(plan),
        "size_bytes": size_bytes,
        "estimated_bytes": report.estimated_bytes,
        "predicted_loss": report.predicted_loss,
        "warnings": list(report.warnings),
    }
    if report.choices:
        summary["choices"] = [asdict(choice) for choice in _shown(report.choices)]
    return ExtractResult(digest, size_bytes, digest_of(content), len(content), summary)


def _shown(choices: Sequence[Choice]) -> list[Choice]:
    """What of the choices goes into a summary, which is read whole; the profile has them all."""
    return [c for c in choices if c.kernels <= _SHOWN_FIRST or "first" not in str(c.layers)]


# ── the second walk ──────────────────────────────────────────────────────────────────────────


class _Packer:
    """Packs what a plan keeps, several kernels at a time, and writes it in forward order."""

    def __init__(self, plan: Plan, device: torch.device, hands: Crew, progress: Progress) -> None:
        self._plan = plan
        self._device = device
        self._hands = hands
        self._progress = progress
        self._reader = ChunkReader(device)

    def pack(self, writer: PatchWriter) -> PackedParts:
        """Pack kernels and riders into `writer`."""
        kept = [kernel for kernel in self._plan.kept if kernel.energy > 0]
        whole, done = sum(kernel.layer.numel for kernel in kept), 0
        kernels: dict[TensorAddress, tuple[Codec, Fidelity]] = {}
        packed = self._hands.map(
            self._pack_kernel,
            kept,
            cost=lambda kernel: _BYTES_AN_ELEMENT * kernel.layer.numel,
            budget=PACKING_BYTES,
        )
        for kernel, (ready, fidelity) in zip(kept, packed, strict=True):
            writer.add(ready)
            kernels[kernel.layer.address] = ready.tensor.codec, fidelity
            done += kernel.layer.numel
            self._progress(done / whole)
        return PackedParts(kernels, self._pack_riders(writer))

    def _pack_kernel(self, kernel: Measured) -> tuple[Ready, Fidelity]:
        layer = kernel.layer
        signature = torch.empty(layer.numel, dtype=torch.float32, device=self._device)
        for chunk in chunks_of(layer):
            tensors = self._plan.pairing.chunks(self._reader, chunk)
            projection.residual_into(
                signature[chunk.start : chunk.end],
                tensors["clean"],
                tensors["robust"],
                tensors.get("origin"),
                kernel.coefficient,
            )
        grain = selection.kernel_grain(self._plan.options.quality, layer.numel)
        norms = sqrt(kernel.energy), sqrt(kernel.weight)
        whole = signature.view(layer.shape)
        ready, decoded = packing.pack(
            layer, Kind.ADDITIVE, grain.codec, whole, norms, coarse=grain.coarse
        )
        if ready.tensor.codec is Codec.F32:
            return ready, extraction.lossless(kernel.energy, kernel.weight or 1.0)
        return ready, extraction.compare(whole, decoded, kernel.weight or 1.0)

    def _pack_riders(self, writer: PatchWriter) -> tuple[RiderProfile, ...]:
        broken = NonFinite()
        ridden = [self._pack_rider(rider, writer, broken) for rider in self._plan.riders]
        broken.refuse()
        return tuple(ridden)

    def _pack_rider(self, rider: Layer, writer: PatchWriter, broken: NonFinite) -> RiderProfile:
        tensors = self._plan.pairing.load(rider, self._device)
        pair = {side: tensors[side] for side in ("clean", "robust")}  # no projection: no origin
        kind, zeroed = Kind.ADDITIVE, 0
        if rider.name.endswith("running_var"):
            kind = Kind.LOG_RATIO
            signature, zeroed = extraction.log_ratio(**pair)
        else:
            broken.add(rider, not_finite(pair))
            signature = extraction.difference(**pair).nan_to_num()
        if bool((signature != 0).any()):
            how = selection.rider_codec(self._plan.options.quality)
            writer.put(rider, kind, how, signature, None)
        return RiderProfile(rider.address.path, rider.name, rider.shape, str(kind), zeroed)

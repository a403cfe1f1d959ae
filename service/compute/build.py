"""Carry out a recipe: write one overlay a weight file, of the tensors that its patches touch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from service import errors
from service.compute.sources import PatchSource, decode, load
from service.layout import fit
from service.layout.header import Header, Read
from service.layout.overlay import OverlayWriter, overlay_header
from service.layout.patchfile import SignatureTensor
from service.names import Digest, TensorAddress
from service.tensors import arithmetic, raw

Progress = Callable[[float], None]
"""Told how much is done, from 0 to 1, after each tensor; what it raises ends the work."""

_NAMED: Final = 10


@dataclass(frozen=True)
class BuildResult:
    """An overlay that was written."""

    digest: Digest
    size_bytes: int
    header: Header


@dataclass(frozen=True)
class _Step:
    """One patch's part in a tensor."""

    source: PatchSource
    tensor: SignatureTensor
    scale: Decimal


def build_overlay(
    base: Mapping[str, Header],
    path: str,
    read_base: Read,
    patches: Sequence[tuple[PatchSource, Decimal]],
    out_path: Path,
    *,
    device: torch.device,
    progress: Progress,
) -> BuildResult:
    """Write the overlay of the weight file `path`.

    `base` holds the headers of all weight files, by which addresses are resolved; `patches` stand
    in canonical order, with scales that are not zero. The patches must fit (`layout.fit`). Raises
    `ScaleOverflows`, `NotAPatchFile` where a tensor does not hash to its pinned digest, and
    `DoesNotFit`.
    """
    arithmetic.check_denormals()
    steps = _steps(base, path, patches)
    header = overlay_header(base[path], list(steps))
    whole = sum(tensor.size_bytes for tensor in header.tensors)
    done = 0
    with out_path.open("wb") as out:
        writer = OverlayWriter(out, header)
        for tensor in header.tensors:
            own = load(read_base, base[path].entry(tensor.name), device)
            writer.write(tensor.name, raw.octets(_patched(tensor.name, own, steps, device)))
            done += tensor.size_bytes
            progress(done / whole if whole else 1.0)
    return BuildResult(writer.finish(), header.file_size, header)


def _steps(
    base: Mapping[str, Header], path: str, patches: Sequence[tuple[PatchSource, Decimal]]
) -> dict[str, list[_Step]]:
    """What is to be done to each tensor of the file, in canonical order of the patches."""
    every = [source.patch.tensors for source, _ in patches]
    reasons = [reason for tensors in every for reason in fit.check(base, tensors)]
    if reasons := reasons + fit.mixed(base, every):
        more = max(0, len(reasons) - _NAMED)
        raise errors.DoesNotFit("of the recipe", "the base", reasons[:_NAMED], more)
    steps: dict[str, list[_Step]] = {}
    for source, scale in patches:
        found = fit.resolve(base, source.patch.tensors)
        for tensor in source.patch.tensors:
            where = found[TensorAddress(tensor.path, tensor.name)]
            if where.path == path and scale != 0:
                steps.setdefault(where.name, []).append(_Step(source, tensor, scale))
    return steps


def _patched(
    name: str, own: Tensor, steps: Mapping[str, Sequence[_Step]], device: torch.device
) -> Tensor:
    kind = steps[name][0].tensor.kind
    return arithmetic.patched(own, kind, _decoded(steps[name], device), tensor=name)


def _decoded(steps: Sequence[_Step], device: torch.device) -> Iterator[tuple[Decimal, Tensor]]:
    for step in steps:
        yield step.scale, decode(step.source, step.tensor, device)

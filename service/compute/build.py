"""Carry out recipes: write one overlay a weight file, of the tensors that the patches touch."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from service import errors
from service.compute.crew import crew
from service.compute.sources import PatchSource, decode, load
from service.layout import fit
from service.layout.header import Header, Read, TensorEntry
from service.layout.overlay import OverlayWriter, Sink, overlay_header
from service.layout.patchfile import SignatureTensor
from service.names import Digest, TensorAddress
from service.tensors import arithmetic, raw

Progress = Callable[[float], None]
"""Told how much is done, from 0 to 1, after each tensor; what it raises ends the work."""

Recipe = Sequence[tuple[PatchSource, Decimal]]
"""Patches in canonical order with their scales, none of them zero."""

_NAMED: Final = 10
_COPIES: Final = 5
"""A tensor of f16 in work beside its result: as it was, and two of f32."""
_BUDGET_BYTES: Final = 2**26
"""What tensors in work may take together; one that takes more is worked on alone."""


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


_Patched = memoryview | errors.ScaleOverflows | None


def build_overlay(
    base: Mapping[str, Header],
    path: str,
    read_base: Read,
    patches: Recipe,
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
    [made] = build_overlays(
        base, path, read_base, {out_path: patches}, device=device, progress=progress
    ).values()
    if isinstance(made, errors.ScaleOverflows):
        raise made
    return made


def build_overlays(
    base: Mapping[str, Header],
    path: str,
    read_base: Read,
    recipes: Mapping[Path, Recipe],
    *,
    device: torch.device,
    progress: Progress,
) -> dict[Path, BuildResult | errors.ScaleOverflows]:
    """Write the overlays that several recipes make of one weight file, by where each is to lie.

    Each tensor of the base is read once, and each signature is decoded once a tensor. A recipe
    whose scales overflow leaves a part of a file and its error; the others go on. Raises as
    `build_overlay` does otherwise.
    """
    arithmetic.check_denormals()
    steps = {out: _steps(base, path, recipe) for out, recipe in recipes.items()}
    touched = [t for t in base[path].tensors if any(t.name in each for each in steps.values())]
    whole = sum(tensor.size_bytes for tensor in touched)
    done = 0
    with ExitStack() as opened:
        overlays = {
            out: _Overlay(
                overlay_header(base[path], list(each)), opened.enter_context(out.open("wb")), each
            )
            for out, each in steps.items()
        }

        def work(tensor: TensorEntry) -> list[_Patched]:
            own = load(read_base, tensor, device)
            decoded = _Decoded(device, keep=len(overlays) > 1)
            return [each.patched(tensor.name, own, decoded) for each in overlays.values()]

        def cost(tensor: TensorEntry) -> int:
            return (_COPIES + len(overlays)) * tensor.size_bytes

        threads = opened.enter_context(crew(device))
        found = threads.map(work, touched, cost=cost, budget=_BUDGET_BYTES)
        for tensor, answers in zip(touched, found, strict=True):
            for overlay, answer in zip(overlays.values(), answers, strict=True):
                overlay.take(tensor.name, answer)
            done += tensor.size_bytes
            progress(done / whole if whole else 1.0)
        if not touched:
            progress(1.0)
        return {out: overlay.finish() for out, overlay in overlays.items()}


class _Overlay:
    """One recipe's overlay, as far as it is written."""

    def __init__(self, header: Header, sink: Sink, steps: Mapping[str, Sequence[_Step]]) -> None:
        self._writer = OverlayWriter(sink, header)
        self._steps = steps
        self._failure: errors.ScaleOverflows | None = None

    def patched(self, name: str, own: Tensor, decoded: "_Decoded") -> _Patched:
        """A tensor of the base as the recipe makes it; None where the recipe leaves it alone."""
        steps = self._steps.get(name)
        if steps is None or self._failure is not None:
            return None
        pairs = ((step.scale, decoded(step)) for step in steps)
        try:
            return raw.octets(arithmetic.patched(own, steps[0].tensor.kind, pairs, tensor=name))
        except errors.ScaleOverflows as error:
            return error

    def take(self, name: str, patched: _Patched) -> None:
        """Write the next tensor."""
        if self._failure is not None or patched is None:
            return
        if isinstance(patched, errors.ScaleOverflows):
            self._failure = patched
        else:
            self._writer.write(name, patched)

    def finish(self) -> BuildResult | errors.ScaleOverflows:
        """What became of it, once every tensor was put."""
        header = self._writer.header
        return self._failure or BuildResult(self._writer.finish(), header.file_size, header)


class _Decoded:
    """Signatures of one tensor as a build adds them; each decoded once where several recipes do."""

    def __init__(self, device: torch.device, *, keep: bool) -> None:
        self._device = device
        self._kept: dict[tuple[int, TensorAddress], Tensor] | None = {} if keep else None

    def __call__(self, step: _Step) -> Tensor:
        """The signature of one step; raises `NotAPatchFile`."""
        if self._kept is None:
            return decode(step.source, step.tensor, self._device)
        key = id(step.source), step.tensor.address
        if key not in self._kept:
            self._kept[key] = decode(step.source, step.tensor, self._device)
        return self._kept[key]


def _steps(base: Mapping[str, Header], path: str, patches: Recipe) -> dict[str, list[_Step]]:
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

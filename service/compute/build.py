"""Carry out recipes: write one overlay a weight file, of the tensors that the patches touch."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from math import prod
from pathlib import Path
from threading import Lock
from typing import Final

import torch
from torch import Tensor

from service import errors
from service.compute.crew import crew
from service.compute.sources import PatchSource, load_part, unpack
from service.layout import fit
from service.layout.disk import RangeReader
from service.layout.header import Header, Read, TensorEntry
from service.layout.overlay import OverlayWriter, Sink, overlay_header
from service.layout.patchfile import SignatureTensor
from service.names import Digest, TensorAddress
from service.tensors import arithmetic, codec, raw
from service.tensors.codec import Unpacked

Progress = Callable[[float], None]
"""Told how much is done, from 0 to 1, after each part of a tensor; what it raises ends the work."""

Recipe = Sequence[tuple[PatchSource, Decimal]]
"""Patches in canonical order with their scales, none of them zero."""

_NAMED: Final = 10
_FEW: Final = codec.ALIGNED * 2**14
_MANY: Final = codec.ALIGNED * 2**18
"""Elements that are worked on at once; a tensor is cut into parts of so many."""
_WORKING_BYTES: Final = 16
"""What an element takes while it is worked on, beside its results."""
_WIDEST_BYTES: Final = 8
_BUDGET_BYTES: Final = 2**24
"""What the parts at work may take together; one that takes more is worked on alone."""

_Key = tuple[int, TensorAddress]


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

    @property
    def key(self) -> _Key:
        """What names its signature."""
        return id(self.source), self.tensor.address


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

    Each tensor of the base is read once, and each signature is decoded once. A recipe
    whose scales overflow leaves a part of a file and its error; the others go on. Raises as
    `build_overlay` does otherwise.
    """
    arithmetic.check_denormals()
    steps = {out: _steps(base, path, recipe) for out, recipe in recipes.items()}
    touched = [t for t in base[path].tensors if any(t.name in each for each in steps.values())]
    whole, done = sum(prod(tensor.shape) for tensor in touched), 0
    with ExitStack() as opened:
        overlays = {
            out: _Overlay(
                overlay_header(base[path], list(each)), opened.enter_context(out.open("wb")), each
            )
            for out, each in steps.items()
        }
        size = _elements_at_once(read_base, device)

        def work(part: _Part) -> tuple[_Part, list[_Patched]]:
            own = load_part(read_base, part.tensor, part.start, part.end, device)
            decoded = _Decoded(part)
            return part, [each.patched(part, own, decoded) for each in overlays.values()]

        def cost(part: _Part) -> int:
            return (part.end - part.start) * (_WORKING_BYTES + len(overlays) * _WIDEST_BYTES)

        threads = opened.enter_context(crew(device))
        parts = _parts(touched, size, device)
        for part, answers in threads.map(work, parts, cost=cost, budget=_BUDGET_BYTES):
            for overlay, answer in zip(overlays.values(), answers, strict=True):
                overlay.take(part.tensor.name, answer)
            done += part.end - part.start
            progress(done / whole)
        if not done:
            progress(1.0)
        return {out: overlay.finish() for out, overlay in overlays.items()}


def _elements_at_once(read: Read, device: torch.device) -> int:
    """Few where reading is cheap and a CPU's cache is to hold them; more across a network."""
    is_near = not isinstance(read, RangeReader) or read.fileno() is not None
    return _FEW if is_near and device.type == "cpu" else _MANY


class _Signatures:
    """The signatures on one tensor; each is unpacked when the first part wants it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._unpacked: dict[_Key, Unpacked] = {}
        self._lock = Lock()

    def __getitem__(self, step: _Step) -> Unpacked:
        """Raises `NotAPatchFile`."""
        with self._lock:
            if step.key not in self._unpacked:
                self._unpacked[step.key] = unpack(step.source, step.tensor, self._device)
            return self._unpacked[step.key]


@dataclass(frozen=True)
class _Part:
    """Elements `[start, end)` of a tensor of the base."""

    tensor: TensorEntry
    start: int
    end: int
    signatures: _Signatures


def _parts(tensors: Iterable[TensorEntry], size: int, device: torch.device) -> Iterator[_Part]:
    for tensor in tensors:
        signatures, numel = _Signatures(device), prod(tensor.shape)
        for start in range(0, numel, size):
            yield _Part(tensor, start, min(numel, start + size), signatures)


class _Decoded:
    """Signatures of a part as a build adds them; each is decoded once for all recipes."""

    def __init__(self, part: _Part) -> None:
        self._part = part
        self._values: dict[_Key, Tensor] = {}

    def __getitem__(self, step: _Step) -> Tensor:
        """Raises `NotAPatchFile`."""
        if step.key not in self._values:
            unpacked = self._part.signatures[step]
            self._values[step.key] = unpacked.part(self._part.start, self._part.end)
        return self._values[step.key]


class _Overlay:
    """One recipe's overlay, as far as it is written."""

    def __init__(self, header: Header, sink: Sink, steps: Mapping[str, Sequence[_Step]]) -> None:
        self._writer = OverlayWriter(sink, header)
        self._steps = steps
        self._failure: errors.ScaleOverflows | None = None

    def patched(self, part: _Part, own: Tensor, decoded: _Decoded) -> _Patched:
        """A part of the base as the recipe makes it; None where the recipe leaves it alone."""
        steps = self._steps.get(part.tensor.name)
        if steps is None or self._failure is not None:
            return None
        pairs = ((step.scale, decoded[step]) for step in steps)
        kind = steps[0].tensor.kind
        try:
            return raw.octets(arithmetic.patched(own, kind, pairs, tensor=part.tensor.name))
        except errors.ScaleOverflows as error:
            return error

    def take(self, name: str, patched: _Patched) -> None:
        """Write the next part."""
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

"""Carry out recipes: write one overlay a weight file, of the tensors that the patches touch."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from math import prod
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from service import errors
from service.compute.crew import Crew, crew
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
_FEW: Final = codec.ALIGNED * 2**15
_MANY: Final = codec.ALIGNED * 2**18
"""Elements that are worked on at once; a tensor is cut into parts of so many. With a quarter of the
fewer, threads that wait for each other between operations took 40 % more CPU time."""
_WORKING_BYTES: Final = 24
"""What an element takes while it is worked on, beside signatures that are kept decoded."""
_DECODED_BYTES: Final = 4
_BUDGET_BYTES: Final = 2**25
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
        every, size = list(overlays.values()), _elements_at_once(read_base, device)
        walk = _Walk(opened.enter_context(crew(device)), read_base, device)
        tasks = _tasks(touched, every, size)
        told = walk.one(tasks, every[0]) if len(every) == 1 else walk.many(tasks, every)
        for elements in told:
            done += elements
            progress(done / whole)
        if not done:
            progress(1.0)
        return {out: overlay.finish() for out, overlay in overlays.items()}


def _elements_at_once(read: Read, device: torch.device) -> int:
    """Few where reading is cheap, so that little memory is held; more across a network."""
    is_near = not isinstance(read, RangeReader) or read.fileno() is not None
    return _FEW if is_near and device.type == "cpu" else _MANY


class _Signatures:
    """The signatures on one tensor of the base, each unpacked once."""

    def __init__(self, steps: Iterable[_Step]) -> None:
        self.steps = {step.key: step for step in steps}
        self._unpacked = {key: Future[Unpacked]() for key in self.steps}

    def unpack(self, key: _Key, device: torch.device) -> None:
        """Make a signature ready to be decoded; raises `NotAPatchFile`."""
        step, unpacked = self.steps[key], self._unpacked[key]
        try:
            unpacked.set_result(unpack(step.source, step.tensor, device))
        except BaseException as error:
            unpacked.set_exception(error)
            raise

    def part(self, key: _Key, start: int, end: int) -> Tensor:
        """Elements `[start, end)` of a signature, decoded once it is unpacked."""
        return self._unpacked[key].result().part(start, end)


@dataclass(frozen=True)
class _Unpacking:
    """A signature to be unpacked, before the parts that need it."""

    signatures: _Signatures
    key: _Key


@dataclass(frozen=True)
class _Part:
    """Elements `[start, end)` of a tensor of the base."""

    signatures: _Signatures
    tensor: TensorEntry
    start: int
    end: int

    @property
    def numel(self) -> int:
        """How many elements it has."""
        return self.end - self.start

    def decoded(self, key: _Key) -> Tensor:
        """A signature's elements."""
        return self.signatures.part(key, self.start, self.end)


_Task = _Unpacking | _Part


def _tasks(
    tensors: Iterable[TensorEntry], overlays: Sequence["_Overlay"], size: int
) -> Iterator[_Task]:
    """What is to be done to each tensor; the crew takes it in this order, so nobody waits long."""
    for tensor in tensors:
        steps = (step for overlay in overlays for step in overlay.steps.get(tensor.name, ()))
        signatures, numel = _Signatures(steps), prod(tensor.shape)
        for key in signatures.steps if numel else ():
            yield _Unpacking(signatures, key)
        for start in range(0, numel, size):
            yield _Part(signatures, tensor, start, min(numel, start + size))


class _Walk:
    """One pass over what the recipes touch; each way of it tells the elements that are written."""

    def __init__(self, threads: Crew, read: Read, device: torch.device) -> None:
        self._threads = threads
        self._read = read
        self._device = device

    def one(self, tasks: Iterable[_Task], overlay: "_Overlay") -> Iterator[int]:
        """Write a lone overlay: here it is hashed, in its order, while the crew computes ahead."""

        def work(task: _Task) -> tuple[_Part, _Patched] | None:
            own = self._own(task)
            return own and (own[0], overlay.patched(*own, own[0].decoded))

        def cost(task: _Task) -> int:
            return _cost(task, 0)

        for made in self._threads.map(work, tasks, cost=cost, budget=_BUDGET_BYTES):
            if made is not None:
                part, patched = made
                overlay.take(part.tensor.name, patched)
                yield part.numel

    def many(self, tasks: Iterable[_Task], overlays: Sequence["_Overlay"]) -> Iterator[int]:
        """Write overlays side by side: of each part the crew shares out the recipes.

        So every core hashes, and memory does not grow with the number of recipes.
        """

        def work(task: _Task) -> tuple[_Part, Tensor, dict[_Key, Tensor]] | None:
            own = self._own(task)
            return own and (*own, {key: own[0].decoded(key) for key in own[0].signatures.steps})

        def cost(task: _Task) -> int:
            return _cost(task, len(task.signatures.steps))

        shares = self._threads.shares(overlays)
        for made in self._threads.map(work, tasks, cost=cost, budget=_BUDGET_BYTES):
            if made is not None:
                part, own, decoded = made
                write = partial(_write, part=part, own=own, decoded=decoded.__getitem__)
                for _ in self._threads.map(write, shares):
                    pass
                yield part.numel

    def _own(self, task: _Task) -> tuple[_Part, Tensor] | None:
        if isinstance(task, _Unpacking):
            task.signatures.unpack(task.key, self._device)
            return None
        own = load_part(self._read, task.tensor, task.start, task.end, self._device)
        return task, own


def _write(
    overlays: Sequence["_Overlay"],
    *,
    part: _Part,
    own: Tensor,
    decoded: Callable[[_Key], Tensor],
) -> None:
    for overlay in overlays:
        overlay.take(part.tensor.name, overlay.patched(part, own, decoded))


def _cost(task: _Task, decoded: int) -> int:
    """What a task takes of memory with so many signatures decoded at once."""
    if isinstance(task, _Unpacking):
        return 0
    return task.numel * (_WORKING_BYTES + decoded * _DECODED_BYTES)


_Patched = memoryview | errors.ScaleOverflows | None


class _Overlay:
    """One recipe's overlay, as far as it is written."""

    def __init__(self, header: Header, sink: Sink, steps: Mapping[str, Sequence[_Step]]) -> None:
        self.steps = steps
        self._writer = OverlayWriter(sink, header)
        self._failure: errors.ScaleOverflows | None = None

    def patched(self, part: _Part, own: Tensor, decoded: Callable[[_Key], Tensor]) -> _Patched:
        """A part of the base as the recipe makes it; None where the recipe leaves it alone."""
        steps = self.steps.get(part.tensor.name)
        if steps is None or self._failure is not None:
            return None
        pairs = ((step.scale, decoded(step.key)) for step in steps)
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

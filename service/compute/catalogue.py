"""Signatures against a whole catalogue: estimated by their sketches, exact for the nearest."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Final

import torch
from torch import Tensor

from service import errors
from service.compute.compare import compare, cosines, measure
from service.compute.jobs import (
    CompareJob,
    CompareMade,
    IdentifyMade,
    IndexJob,
    IndexMade,
    KnownSignature,
    Likeness,
    SignatureInput,
    SignatureMeasures,
)
from service.compute.sources import PatchSource
from service.layout import patchfile
from service.layout.header import Read
from service.names import Digest
from service.tensors.similarity import WIDTH, Catalogue, Estimate, Measured, estimates

EXACT: Final = 8
"""To so many of the nearest of each signature the cosine is exact."""
EXACT_BYTES: Final = 256 * 2**20
"""… as long as their patch files are no larger than this together."""

OpenRead = Callable[[Digest], Read]
Told = Callable[[float, str], None]
UNREADABLE: Final = (errors.Invalid, errors.NotFound, errors.Broken)
"""What stands in the way of one signature, and would at any later time."""


def open_signature(file: SignatureInput, open_read: OpenRead) -> PatchSource:
    """Open a patch file; raises what `patchfile.read` and `open_read` do."""
    read = open_read(file.digest)
    return PatchSource(patchfile.read(read, file.size_bytes), read)


def compare_all(
    job: CompareJob, open_read: OpenRead, device: torch.device, told: Told
) -> CompareMade:
    """Compare patch files, each with each; raises `NotAPatchFile`."""
    sources = [open_signature(file, open_read) for file in job.patches]
    return CompareMade(compare(sources, device, lambda done: told(done, "comparing kernels")))


# ── the index ────────────────────────────────────────────────────────────────────────────────


def index(
    job: IndexJob,
    open_read: OpenRead,
    device: torch.device,
    told: Told,
    *,
    exact: int = EXACT,
) -> IndexMade:
    """Measure new signatures and find who is near whom; one that cannot be read stops no other."""
    reading = _Reading(open_read, device)
    measured: dict[int, Measured] = {}
    unreadable: dict[int, str] = {}
    for done, file in enumerate(job.new):
        told(0.5 * done / len(job.new), "measuring signatures")
        try:
            measured[file.id] = measure(reading.source(file), device)
        except UNREADABLE as error:
            unreadable[file.id] = str(error)
    new = [file for file in job.new if file.id in measured]
    files = [*(known.file for known in job.known), *new]
    written = {number: _written(each) for number, each in measured.items()}
    whole = _catalogue([*(known.measures for known in job.known), *written.values()])
    by_id = {file.id: file for file in files}
    floors = {known.file.id: known.floor for known in job.known}
    bars = torch.tensor([floors.get(file.id, inf) for file in files], dtype=torch.float64)
    found: list[Likeness] = []
    near = estimates(list(measured.values()), whole) if new else iter(())
    for done, (file, estimated) in enumerate(zip(new, near, strict=True)):
        told(0.5 + 0.5 * done / len(new), "looking for neighbours")
        matter = _likenesses(file.id, estimated, files, _matter(estimated, bars, job.kept + 1))
        ranked = sorted(matter, key=lambda each: -each.strength)
        sharpened = reading.exact(reading.source(file), ranked, by_id, exact)
        found += sharpened[: job.kept]
        found += [
            _turned(each) for each in sharpened if each.strength > floors.get(each.other, inf)
        ]
    return IndexMade(written, unreadable, tuple(found))


def _matter(found: Estimate, bars: Tensor, count: int) -> Tensor:
    """Which of a catalogue are among the `count` nearest to one, or have it among theirs."""
    strengths = (found.cosines.abs() - 2 * found.errors).clamp(min=0.0)
    strengths = torch.where(found.own > 0, strengths, -1.0)
    nearest = torch.zeros(len(strengths), dtype=torch.bool)
    nearest[strengths.topk(min(count, len(strengths))).indices] = True
    return nearest | (strengths > bars)


def identify(
    unknown: PatchSource,
    known: Sequence[KnownSignature],
    open_read: OpenRead,
    device: torch.device,
    told: Told,
) -> IdentifyMade:
    """Compare an unknown signature with all that are known; raises `NotAPatchFile`."""
    told(0.0, "comparing with the catalogue")
    reading = _Reading(open_read, device)
    files = {each.file.id: each.file for each in known}
    whole = _catalogue([each.measures for each in known])
    (found,) = estimates([measure(unknown, device)], whole)
    likenesses = _likenesses(0, found, list(files.values()), found.own > 0)
    ranked = sorted(likenesses, key=lambda each: -each.cosine - each.error)
    return IdentifyMade(tuple(reading.exact(unknown, ranked, files, 2 * EXACT)))


class _Reading:
    """Reads signatures; each file is opened once."""

    def __init__(self, open_read: OpenRead, device: torch.device) -> None:
        self._open_read, self._device = open_read, device
        self._opened: dict[Digest, PatchSource] = {}

    def source(self, file: SignatureInput) -> PatchSource:
        """The signature in a patch file."""
        if file.digest not in self._opened:
            self._opened[file.digest] = open_signature(file, self._open_read)
        return self._opened[file.digest]

    def exact(
        self,
        one: PatchSource,
        ranked: list[Likeness],
        files: Mapping[int, SignatureInput],
        count: int,
    ) -> list[Likeness]:
        """Replace the first `count` by exact ones, where their files can be read."""
        there: list[tuple[int, PatchSource]] = []
        size_bytes = 0
        for number, likeness in enumerate(ranked[:count]):
            file = files[likeness.other]
            size_bytes += file.size_bytes
            if size_bytes > EXACT_BYTES:
                break
            try:
                there.append((number, self.source(file)))
            except UNREADABLE:
                continue  # deleted meanwhile: the estimate stands
        exact = list(ranked)
        values = cosines(one, [source for _, source in there], self._device)
        for (number, _), cosine in zip(there, values, strict=True):
            if cosine is not None:
                exact[number] = replace(ranked[number], cosine=cosine, error=0.0)
        return exact


def _likenesses(
    one: int, found: Estimate, files: Sequence[SignatureInput], wanted: Tensor
) -> list[Likeness]:
    """To those wanted of a catalogue that share a kernel with this one."""
    rows = torch.stack([found.cosines, found.errors, found.own, found.other], dim=1)
    return [
        Likeness(one, files[number].id, *row)
        for number, row in zip(wanted.nonzero()[:, 0].tolist(), rows[wanted].tolist(), strict=True)
        if row[2] > 0 and files[number].id != one
    ]


def _turned(likeness: Likeness) -> Likeness:
    return Likeness(
        likeness.other,
        likeness.one,
        likeness.cosine,
        likeness.error,
        likeness.other_share,
        likeness.own_share,
    )


def _written(measured: Measured) -> SignatureMeasures:
    return SignatureMeasures(
        measured.keys.numpy().tobytes(),
        measured.energies.numpy().tobytes(),
        measured.sketch.numpy().tobytes(),
        measured.length,
    )


def _catalogue(stored: Sequence[SignatureMeasures]) -> Catalogue:
    """All that is kept of many signatures side by side, each kind of number read in one go."""

    def joined(parts: Iterable[bytes], dtype: torch.dtype) -> Tensor:
        content = bytearray().join(parts)
        return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)

    return Catalogue(
        joined((each.keys for each in stored), torch.int64),
        joined((each.energies for each in stored), torch.float64),
        torch.tensor([len(each.keys) // 8 for each in stored], dtype=torch.int64),
        joined((each.sketch for each in stored), torch.float16).to(torch.float32).view(-1, WIDTH),
        torch.tensor([each.length for each in stored], dtype=torch.float64),
    )

"""Fifty scales of one patch in one sweep, against one build and against fifty builds.

    python -m benchmarks.sweep [--scales 50] [--rounds 3] [--skip-large] [--results FILE]

In process it is `compute.sweep`, as a worker's child calls it; through the service it is
`POST /v1/sweeps` until its operation has ended, its CPU that of all processes of the service. The
small model is a convolutional net in f32 with its first six kernels patched, the large one 256 MiB
in f16 with 40 MiB patched; both patches are of `standard` quality. Times are medians over rounds,
after one build to warm up. The floor is to hash and write what a sweep gives, and nothing else.
"""

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Final

import torch

from benchmarks._layered import (
    FILE,
    MIB,
    Shapes,
    equal_layers,
    publish,
    sha256_of,
    write_model,
    write_patch,
)
from benchmarks._service import settle, spent
from examples.local_service import LocalService, local_service
from service.client.client import Client
from service.compute.jobs import BuildMade, ModelInput, PatchInput, SweepJob, WeightInput
from service.compute.sweep import sweep
from service.layout.disk import reader
from service.layout.header import Read
from service.names import Digest, weights_digest
from service.schemas.operations import OperationView
from service.tensors import raw

RESULTS: Final = Path(__file__).parent / "results" / "sweep.md"
CPU: Final = torch.device("cpu")
CHANNELS: Final = (3, 32, 32, 64, 64, 128, 128, 256, 256, 256)
PATCHED: Final = 6
REMARKS: Final = """\
The floor is to hash and write what the overlays hold, and nothing else. A sweep reads each tensor
of the base once and decodes each signature once, but every recipe's overlay is a file of its own
whose sha256 is recorded: where the floor alone is more than five builds, so is the sweep. In
process a build is cheap, since its patch is kept unpacked; through the service each has requests,
a job and rows of its own, which a sweep has once. Both cores hash; the floor is taken on one."""


@dataclass(frozen=True)
class Case:
    """A model and a patch on it, as files."""

    name: str
    base: Path
    patch: Path
    touched_bytes: int


@dataclass(frozen=True)
class Taken:
    """What something took, in seconds."""

    wall_s: float
    cpu_s: float

    def __truediv__(self, other: "Taken") -> tuple[float, float]:
        return self.wall_s / other.wall_s, self.cpu_s / other.cpu_s

    def times(self, count: float) -> "Taken":
        """The same, so many times."""
        return Taken(self.wall_s * count, self.cpu_s * count)


@dataclass(frozen=True)
class Row:
    """One case, one way of asking."""

    case: str
    how: str
    one: Taken
    many: Taken
    sweep: Taken
    floor: Taken


# ── models ───────────────────────────────────────────────────────────────────────────────────


def small(folder: Path) -> Case:
    """A convolutional net of nine kernels."""
    shapes = {
        f"features.{number}.weight": (out, into, 3, 3)
        for number, (into, out) in enumerate(pairwise(CHANNELS))
    }
    return case(folder / "small", shapes, "F32", PATCHED)


def large(folder: Path) -> Case:
    """A model of 256 MiB."""
    return case(folder / "large", equal_layers(256), "F16", 10)


def case(path: Path, shapes: Shapes, dtype: str, count: int) -> Case:
    """A model and a patch of its first `count` kernels."""
    base, moved = path.with_suffix(".safetensors"), list(shapes)[:count]
    write_model(base, shapes, dtype)
    write_patch(path, shapes, dtype, base, moved)
    touched = sum(prod(shapes[name]) for name in moved) * raw.DTYPES[dtype].itemsize
    return Case(f"{base.stat().st_size / MIB:.1f} MiB", base, path, touched)


# ── in process ───────────────────────────────────────────────────────────────────────────────


@contextmanager
def opened(case: Case) -> Iterator[tuple[ModelInput, PatchInput, Callable[[Digest], Read]]]:
    """What a job names, and how it is opened."""
    with ExitStack() as stack:
        reads = {}
        for path in (case.base, case.patch):
            file = stack.enter_context(path.open("rb"))
            reads[path] = Digest(f"sha256:{sha256_of(path)}"), reader(file)
        by_digest = dict(reads.values())
        weights = reads[case.base][0], case.base.stat().st_size
        model = ModelInput(weights_digest({FILE: weights}), "bench", (WeightInput(FILE, *weights),))
        patch = PatchInput(reads[case.patch][0], case.patch.stat().st_size, "bench", Decimal(1))
        yield model, patch, by_digest.__getitem__


def in_process(case: Case, count: int, rounds: int) -> Row:
    """Time `compute.sweep` with one recipe and with many."""
    with opened(case) as (model, patch, open_read):

        def carry_out(scales: Sequence[Decimal]) -> None:
            recipes = tuple(
                (PatchInput(patch.digest, patch.size_bytes, patch.reference, scale),)
                for scale in scales
            )
            with tempfile.TemporaryDirectory() as scratch:
                job = SweepJob(model, recipes)
                made = sweep(job, open_read, Path(scratch), CPU, lambda *_: None)
            if not all(isinstance(each, BuildMade) for each in made.recipes):
                raise RuntimeError("a recipe was not carried out")

        every = scales_of(count)

        def separately() -> None:
            for scale in every:
                carry_out([scale])

        carry_out(every[:1])
        one = median(rounds * 3, lambda: carry_out(every[:1]))
        many = median(rounds, separately)
        at_once = median(rounds, lambda: carry_out(every))
    return Row(case.name, "compute.sweep", one, many, at_once, floor(case, count, rounds))


def floor(case: Case, count: int, rounds: int) -> Taken:
    """What no way of making so many files can do without."""
    return median(rounds, lambda: hash_and_write(case.touched_bytes, count))


def hash_and_write(size_bytes: int, count: int) -> None:
    """Hash and write as many bytes as so many overlays have."""
    content = os.urandom(min(size_bytes, 4 * MIB))
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            sha256 = hashlib.sha256()
            with Path(folder, str(number)).open("wb") as file:
                for start in range(0, size_bytes, len(content)):
                    part = content[: size_bytes - start]
                    sha256.update(part)
                    file.write(part)


# ── through the service ──────────────────────────────────────────────────────────────────────


def through_service(
    service: LocalService, client: Client, case: Case, count: int, rounds: int
) -> Row:
    """Time the routes; every round has scales of its own, since what is built stays built."""
    patch = case.patch.name
    publish(client, f"bench/{patch}-net", case.base, [case.patch])
    scales = iter(scales_of(1 + rounds * (3 + 2 * count)))

    def next_recipes(number: int) -> list[str]:
        return [f"bench/{patch}-net@main+{patch}={next(scales)}" for _ in range(number)]

    def separately() -> None:
        asked = [client.builds.request(recipe) for recipe in next_recipes(count)]
        for each in asked:
            if isinstance(each, OperationView):
                client.operations.wait(each.id)

    def settled(act: Callable[[], object], times: int) -> Taken:
        return median(times, act, lambda: spent(service), lambda: settle(client))

    client.builds.ready(next_recipes(1)[0])
    one = settled(lambda: client.builds.ready(next_recipes(1)[0]), rounds * 3)
    at_once = settled(lambda: swept(client, next_recipes(count)), rounds)
    many = settled(separately, rounds)
    return Row(case.name, "POST /v1/sweeps", one, many, at_once, floor(case, count, rounds))


def swept(client: Client, recipes: list[str]) -> None:
    """Ask for a sweep and wait for it."""
    client.builds.sweep(recipes)


# ── timing ───────────────────────────────────────────────────────────────────────────────────


def scales_of(count: int) -> list[Decimal]:
    """So many scales, none of them zero."""
    return [Decimal(number + 1) / 1000 for number in range(count)]


def median(
    rounds: int,
    act: Callable[[], object],
    cpu_s: Callable[[], float] = time.process_time,
    before: Callable[[], None] = lambda: None,
) -> Taken:
    """The medians of wall and CPU time over some rounds."""
    walls, cpus = [], []
    for _ in range(rounds):
        before()
        began, cpu_before = time.perf_counter(), cpu_s()
        act()
        walls.append(time.perf_counter() - began)
        cpus.append(cpu_s() - cpu_before)
    return Taken(statistics.median(walls), statistics.median(cpus))


# ── telling ──────────────────────────────────────────────────────────────────────────────────


def table(rows: Sequence[Row], count: int) -> Iterator[str]:
    """The rows in Markdown."""
    yield (
        f"| model | how | one build | {count} builds | a sweep of {count} | sweep ÷ one build, "
        f"wall | CPU | {count} builds ÷ sweep, wall | CPU | sweep ÷ floor, CPU | "
        "floor ÷ one build, CPU |"
    )
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    for row in rows:
        wall, cpu = row.sweep / row.one
        many_wall, many_cpu = row.many / row.sweep
        over, least = (row.sweep / row.floor)[1], (row.floor / row.one)[1]
        seconds = " | ".join(f"{each.wall_s:.3f} s" for each in (row.one, row.many, row.sweep))
        yield (
            f"| {row.case} | {row.how} | {seconds} | **{wall:.1f}** | {cpu:.1f} | "
            f"{many_wall:.1f} | {many_cpu:.1f} | {over:.1f} | {least:.1f} |"
        )


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scales", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-large", action="store_true")
    parser.add_argument("--in-process", action="store_true", help="Leave the service out.")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as text:
        makers = (small,) if given.skip_large else (small, large)
        cases = [maker(Path(text)) for maker in makers]
        for case in cases:
            rows.append(in_process(case, given.scales, given.rounds))
            print(rows[-1], flush=True)
        if not given.in_process:
            with local_service() as service, Client(service.url, service.token) as client:
                for case in cases:
                    rows.append(through_service(service, client, case, given.scales, given.rounds))
                    print(rows[-1], flush=True)
    title = f"# {given.scales} scales in one sweep"
    told = "\n".join([title, "", *table(rows, given.scales), "", REMARKS, ""])
    print(f"\n{told}")
    given.results.parent.mkdir(parents=True, exist_ok=True)
    given.results.write_text(told)


if __name__ == "__main__":
    main()

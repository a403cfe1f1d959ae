"""Extraction against the paper's procedure on whole state dicts, and against hashing its inputs.

    python -m benchmarks.extract [--mib 1024] [--repeats 5] [--origin] [--even]

All work on the same two models (three with --origin), read before so that they lie in the page
cache, one after the other and round by round; each in a process of its own, whose imports do not
count. Ratios are medians over the rounds. Memory is the growth of private memory (`RssAnon`).

- ours: `compute.extract`, as a worker or `patchbay local extract` runs it, with the default choice
  of layers; it also writes the profile, hashes what it packs and checks what a build will decode.
- paper, mapped: both state dicts mapped from safetensors files, the signature of every floating
  tensor as state dict arithmetic with the projection, in f32; then of the layers that ours kept the
  paper's own min-max quantizer at 4 bits (or none for `exact`), and `save_file`. torch uses all
  cores.
- paper, loaded: the same arithmetic on PyTorch checkpoints, read whole with `torch.load` and
  written with `torch.save`, as the authors' code keeps its state dicts.
- hash: `hashlib.sha256` over the files, one after the other; and in two threads, a file each.

The clean model is random; the change is dense in all layers and falls from the first to the last,
as measured on trained networks, while layers grow. --even: alike in all layers, the worst case.
Where other processes keep the cores busy, two threads bring less than on a free machine and wall
times vary; the ratios of CPU time then say more.

The rows that a run measures replace those of the same name in `results/extract.md`; the others
stay, so that it can be run in portions (--dtypes, --qualities, --models: keep the models there).
"""

import argparse
import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks._processes import Watched

MIB: Final = 2**20
STAGES: Final = 8
KERNELS: Final = 8
"""In a stage."""
GROWTH: Final = 1.7
"""Of a kernel from stage to stage."""
FIRST_CHANGE: Final = 0.1
FALL: Final = 0.85
"""Of the relative change from stage to stage."""
DTYPES: Final = {"f16": torch.float16, "f32": torch.float32}
QUALITIES: Final = ("standard", "exact")
SIDES: Final = ("origin", "clean", "robust")
MAPPED: Final = "paper, mapped"
LOADED: Final = "paper, loaded"
RESULTS: Final = Path(__file__).parent / "results" / "extract.md"
REMARKS: Final = """\
"Mapped" is the paper's procedure on state dicts that safetensors maps, "loaded" on checkpoints that
`torch.load` reads. Medians of two or three rounds. Extraction keeps to half the speed of hashing
and to a tenth of the memory, and is far from five times the paper's speed. Why, in ns an element:

- Every element: two models are read, widened, subtracted and multiplied for three sums in f64. One
  thread with small tiles, which its cache holds, takes 3.1 for the sums. Two threads with those
  take 7.0 each, since they wait at every call for Python's lock (33 us there and back between two
  threads); with tiles of 2^18 elements they take 5.2. Two processes with small tiles took 3.2
  each. For models of this size they would save 0.5 s, and to import torch costs a process 2.1 s of
  CPU; for models ten times as large they would pay. Not built.
- Every kept element, 18 % of them: about 10 for the sha256 of the decoded signature, 7 for Huffman
  codes, 2 to inflate them again, 3 to 5 for the signature, 9 to fit and round it, 4 to compare
  (CPU time of one thread on a busy machine, the best of four).
- So f16, `standard`: five times the mapped procedure would be 1.3 s, or 2.5 s of two cores. The
  sums at their best (1.7 s), the sha256 (1.0 s) and the Huffman codes (0.7 s) alone take more, and
  the paper's procedure has neither of the last two.
"""


# ── the models ───────────────────────────────────────────────────────────────────────────────


def shapes(elements: int) -> Iterator[tuple[str, int, tuple[int, int]]]:
    """Name, stage and shape of every kernel of a model of about so many elements."""
    unit = elements / (KERNELS * sum(GROWTH**stage for stage in range(STAGES)))
    for stage in range(STAGES):
        side = max(8, int(math.sqrt(unit * GROWTH**stage)) // 8 * 8)
        for number in range(KERNELS):
            yield f"stage{stage}.{number}.conv", stage, (side, side)


def write_models(folder: Path, size_mib: int, dtype: torch.dtype, *, even: bool) -> None:
    """Write an origin, a clean model near it, and a robust one."""
    from safetensors.torch import save_file  # noqa: PLC0415  # children start without it

    chance = torch.Generator().manual_seed(1)
    models: dict[str, dict[str, Tensor]] = {side: {} for side in SIDES}
    for name, stage, shape in shapes(size_mib * MIB // dtype.itemsize):
        change = FIRST_CHANGE * (FALL ** (0 if even else stage))
        origin = torch.randn(shape, generator=chance) * shape[1] ** -0.5
        size = shape[1] ** -0.5
        steps = {"origin": 0.0, "clean": 0.05, "robust": change}
        tensor = origin
        for side in SIDES:
            if steps[side]:
                tensor = tensor + steps[side] * size * torch.randn(shape, generator=chance)
            models[side][f"{name}.weight"] = tensor.to(dtype)
            bias = 0.1 * torch.randn(shape[0], generator=chance)
            models[side][f"{name}.bias"] = bias.to(dtype)
    for side in SIDES:
        state = models.pop(side)
        save_file(state, folder / f"{side}.safetensors")
        torch.save(state, folder / f"{side}.pt")


# ── what is compared, each in a process of its own ───────────────────────────────────────────


def ours(folder: Path, sides: list[str], quality: str) -> Callable[[], object]:
    """Extract as the service does."""
    from service.compute import extract  # noqa: PLC0415
    from service.compute.measure import ExtractOptions  # noqa: PLC0415
    from service.compute.pairing import Trio  # noqa: PLC0415
    from service.compute.sources import ModelFiles, WeightFile  # noqa: PLC0415
    from service.layout.disk import reader  # noqa: PLC0415
    from service.layout.header import read_header  # noqa: PLC0415
    from service.tensors.selection import parse_quality  # noqa: PLC0415

    def model(side: str) -> ModelFiles:
        path = folder / f"{side}.safetensors"
        read = reader(path.open("rb"))
        header = read_header(read, path.stat().st_size)
        return ModelFiles({"model.safetensors": WeightFile(header, read)}, "sha256:" + "0" * 64)

    def run() -> object:
        models = {side: model(side) for side in sides}
        result = extract.extract(
            Trio(models["clean"], models["robust"], models.get("origin")),
            ExtractOptions(quality=parse_quality(quality)),
            folder / "ours.rws.safetensors",
            folder / "profile.json",
            device=torch.device("cpu"),
            progress=lambda _: None,
        )
        return result.summary

    return run


def mapped(folder: Path, sides: list[str], quality: str) -> Callable[[], object]:
    """The paper's procedure on state dicts that safetensors maps."""
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    def run() -> None:
        state = {side: load_file(folder / f"{side}.safetensors") for side in sides}
        save_file(_signature(folder, state, quality), folder / "paper.safetensors")

    return run


def loaded(folder: Path, sides: list[str], quality: str) -> Callable[[], object]:
    """The paper's procedure on PyTorch checkpoints."""

    def run() -> None:
        state = {side: torch.load(folder / f"{side}.pt", weights_only=True) for side in sides}
        torch.save(_signature(folder, state, quality), folder / "paper.pt")

    return run


def _signature(
    folder: Path, state: dict[str, dict[str, Tensor]], quality: str
) -> dict[str, Tensor]:
    """The signature of every tensor; of those that ours kept, packed."""
    wide = {side: {k: v.float() for k, v in own.items()} for side, own in state.items()}
    rob, std = wide["robust"], wide["clean"]
    if "origin" in wide:
        rob = {k: v - wide["origin"][k] for k, v in rob.items()}
        std = {k: v - wide["origin"][k] for k, v in std.items()}
    along = {k: (rob[k] * std[k]).sum() / (std[k] * std[k]).sum() for k in rob}
    signature = {k: rob[k] - along[k] * std[k] for k in rob}
    shallow = {k: signature[k] for k in json.loads((folder / "kept.json").read_text())}
    return shallow if quality == "exact" else _min_max(shallow, 16)


def _min_max(signature: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Even steps between the least and the greatest element of each tensor."""
    packed = {}
    for name, tensor in signature.items():
        least, greatest = tensor.min(), tensor.max()
        step = (greatest - least) / (levels - 1)
        packed[name] = ((tensor - least) / step).round().to(torch.uint8)
        packed[f"{name}.range"] = torch.stack([least, step])
    return packed


def hashing(folder: Path, sides: list[str], threads: int) -> Callable[[], object]:
    """Hash the inputs."""

    def sha256(side: str) -> str:
        with (folder / f"{side}.safetensors").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def run() -> object:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(sha256, sides))

    return run


def child(role: str, folder: Path, sides: list[str], quality: str) -> None:
    """Get ready, say so, wait for a line, work, print how long it took."""
    roles = {
        "ours": lambda: ours(folder, sides, quality),
        MAPPED: lambda: mapped(folder, sides, quality),
        LOADED: lambda: loaded(folder, sides, quality),
        "hash": lambda: hashing(folder, sides, 1),
        "hash in 2 threads": lambda: hashing(folder, sides, 2),
    }
    run = roles[role]()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.ones(2**16).sum()
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    answer = run()
    print(json.dumps([time.perf_counter() - began, answer]), flush=True)


# ── the comparison ───────────────────────────────────────────────────────────────────────────


class Run:
    """One run of one role: wall time in seconds, growth of private memory in bytes."""

    def __init__(self, role: str, folder: Path, sides: list[str], quality: str) -> None:
        command = [sys.executable, "-m", "benchmarks.extract", "--role", role]
        command += ["--folder", str(folder), "--sides", ",".join(sides), "--quality", quality]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None  # noqa: S101  # pipes were asked for
            assert process.stdout is not None  # noqa: S101
            process.stdout.readline()
            with Watched([process.pid]) as watched:
                process.stdin.write("go\n")
                process.stdin.flush()
                line = process.stdout.readline()
            self.wall_s, self.answer = json.loads(line)
        self.cpu_s = watched.cpu_s
        self.private_bytes = watched.grown_bytes


def compare(
    folder: Path, sides: list[str], quality: str, repeats: int
) -> tuple[dict[str, list[Run]], dict[str, Any]]:
    """All roles, round by round; the first round warms the page cache and is not counted."""
    first = Run("ours", folder, sides, quality)
    profile = json.loads((folder / "profile.json").read_text())
    kept = [kernel["name"] for kernel in profile["kernels"] if kernel["kept"]]
    (folder / "kept.json").write_text(json.dumps(kept))
    runs: dict[str, list[Run]] = {}
    for _ in range(repeats):
        for role in ("hash", "ours", "hash in 2 threads", MAPPED, LOADED):
            runs.setdefault(role, []).append(Run(role, folder, sides, quality))
    return runs, first.answer


def ratio(runs: dict[str, list[Run]], role: str, of: Callable[[Run], float]) -> float:
    """The median over the rounds of another role's value over ours."""
    pairs = zip(runs[role], runs["ours"], strict=True)
    return statistics.median(of(other) / of(own) for other, own in pairs)


def row(case: tuple[str, ...], runs: dict[str, list[Run]], summary: dict[str, Any]) -> list[str]:
    """One line of the table."""
    memory = max(run.private_bytes for run in runs["ours"])
    theirs = statistics.median(run.private_bytes for run in runs[MAPPED])
    return [
        *case,
        f"{summary['parameters_kept'] / summary['parameters']:.0%}",
        f"{summary['size_bytes'] / MIB:.1f}",
        f"{statistics.median(run.wall_s for run in runs['ours']):.2f}",
        f"{ratio(runs, MAPPED, lambda run: run.wall_s):.2f}",
        f"{ratio(runs, LOADED, lambda run: run.wall_s):.2f}",
        f"{ratio(runs, 'hash', lambda run: run.wall_s):.2f}",
        f"{ratio(runs, 'hash in 2 threads', lambda run: run.wall_s):.2f}",
        f"{ratio(runs, MAPPED, lambda run: run.cpu_s):.2f}",
        f"{ratio(runs, LOADED, lambda run: run.cpu_s):.2f}",
        f"{ratio(runs, 'hash', lambda run: run.cpu_s):.2f}",
        f"{memory / MIB:.0f}",
        f"{memory / theirs:.1%}",
    ]


COLUMNS: Final = (
    "models",
    "dtype",
    "quality",
    "kept",
    "patch MiB",
    "ours s",
    "speed / the paper's, mapped",
    "/ loaded",
    "/ hashing",
    "/ hashing in 2 threads",
    "CPU of the paper's, mapped / ours",
    "loaded / ours",
    "hashing / ours",
    "private MiB",
    "of the paper's, mapped",
)
CASE: Final = 3
"""So many of the columns name a row."""


# ── telling ──────────────────────────────────────────────────────────────────────────────────


def machine() -> str:
    """What the numbers were taken on, from Linux' /proc."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = {name.strip(): value for name, _, value in (line.partition(":") for line in lines)}
    cores = len(os.sched_getaffinity(0))
    sha = "with" if "sha_ni" in facts.get("flags", "").split() else "no"
    return f"{cores} cores at {float(facts['cpu MHz']) / 1000:.1f} GHz, {sha} SHA extensions"


def keep(rows: list[list[str]], results: Path) -> None:
    """Write the table: these rows, and those of other names that were there."""
    kept: dict[tuple[str, ...], list[str]] = {}
    before = results.read_text().splitlines() if results.exists() else []
    old = [[cell.strip() for cell in line.strip("|").split("|")] for line in before if "|" in line]
    for cells in old[2:] + rows:
        kept[tuple(cells[:CASE])] = cells
    lines = [list(COLUMNS), ["---"] * CASE + ["---:"] * (len(COLUMNS) - CASE)]
    lines += [kept[case] for case in sorted(kept)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    today = datetime.now(tz=UTC).date()
    results.write_text(
        f"# Extraction\n\n{today}, {machine()}.\n\n{table}\n\n{REMARKS}", encoding="utf-8"
    )


def main() -> None:
    """Print the rows, and keep them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mib", type=int, default=1024, help="size of each model")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--qualities", default=",".join(QUALITIES))
    parser.add_argument("--origin", action="store_true", help="three models, not two")
    parser.add_argument("--even", action="store_true", help="the same change in all layers")
    parser.add_argument("--models", type=Path, help="where to keep the models for another run")
    parser.add_argument("--results", type=Path, default=RESULTS)
    for hidden in ("--role", "--folder", "--sides", "--quality"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        child(given.role, Path(given.folder), given.sides.split(","), given.quality)
        return
    sides = ["clean", "robust", *(["origin"] if given.origin else [])]
    models = f"{len(sides)} of {given.mib} MiB{', even' if given.even else ''}"
    rows = []
    for dtype in given.dtypes.split(","):
        with tempfile.TemporaryDirectory(prefix="patchbay-extract-") as made:
            folder = Path(made) if given.models is None else given.models / f"{models}, {dtype}"
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "robust.pt").exists():
                write_models(folder, given.mib, DTYPES[dtype], even=given.even)
            for quality in given.qualities.split(","):
                runs, summary = compare(folder, sides, quality, given.repeats)
                rows.append(row((models, dtype, quality), runs, summary))
                print(*map(": ".join, zip(COLUMNS, rows[-1], strict=True)), sep="; ", flush=True)
    keep(rows, given.results)


if __name__ == "__main__":
    main()

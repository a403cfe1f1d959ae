"""The first patched byte of a recipe never built before, against patching the whole file.

    python -m benchmarks.cold_build [--repeats N] [--dense] [--mergekit PYTHON] [--results FILE]

A model of 1 GiB in f16, three patches that touch the same 40 MiB of it. Ours is counted over HTTP,
from the request to the first patched byte, with all processes: web, worker, device, Postgres. Its
overlay is on the disk (fsync) before the recipe counts as built. Three times:

- patches known: recipes after the first with these patches;
- patches verified: the first recipe, by the worker that verified the patches when they came;
- patches new: the first recipe of a worker that never saw them, which holds each decoded tensor to
  the digest that its file pins.

Against it load, add, save with torch and safetensors, everything imported and the page cache warm:

- base mapped: `load_file`, and patches that were decoded to f32 beforehand; its file may still be
  in the page cache alone;
- base mapped, on the disk: the same and an fsync, as ours;
- the same from patch files: the patches are the files that ours has, decoded by our decoder;
- base read: as the first, but the base is read into memory, as where a file must not be mapped.

All give the same bytes, which is checked. With `--mergekit` also task_arithmetic by that
interpreter's mergekit, whose three models are full copies.

Private memory is the growth of RssAnon over the idle process (before its first build), sampled
every 20 ms: what is mapped from files does not count, nor what torch takes to be imported.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final

import torch
from safetensors.torch import load_file, save_file

from benchmarks import _gib, _load
from benchmarks._processes import Watched
from service.client.client import Client
from service.schemas.operations import State
from tests.service_process import ServiceProcess

MIB: Final = 2**20
SETTINGS: Final = {"PATCHBAY_HEARTBEAT_S": "10", "PATCHBAY_STALLED_AFTER_S": "30"}
"""As they are by default, not as the tests have them."""
RESULTS: Final = Path(__file__).parent / "results" / "cold_build.md"
OURS: Final = "ours, patches known"
VERIFIED: Final = "ours, patches verified"
NEW: Final = "ours, patches new"
SAVED: Final = "load, add, save: base mapped"
SYNCED: Final = "base mapped, on the disk"
DECODED: Final = "the same from patch files"
READ: Final = "load, add, save: base read"
MERGED: Final = "mergekit task_arithmetic"


@dataclass(frozen=True)
class Run:
    """What one way of patching took; `wall_s` to the first byte that can be sent."""

    wall_s: float
    cpu_s: float
    private_bytes: int
    written_bytes: int


def middle(runs: Sequence[Run]) -> Run:
    """The medians of some runs, field by field."""
    return Run(
        median(run.wall_s for run in runs),
        median(run.cpu_s for run in runs),
        int(median(run.private_bytes for run in runs)),
        int(median(run.written_bytes for run in runs)),
    )


class Ours:
    """A running service."""

    def __init__(self, service: ServiceProcess, base: Path) -> None:
        self._service = service
        self._client = Client(service.url, service.token)
        entry = _gib.header_of(base).entry(_gib.TOUCHED[0])
        self._range = f"Range: bytes={entry.start}-{entry.end - 1}"
        self._idle: int | None = None

    def publish(self, base: Path, patches: Sequence[Path]) -> None:
        """Publish the model and patches on it, which the worker verifies."""
        _gib.publish(self._client, base, patches)

    def run(self, recipe: str) -> Run:
        """Ask for a recipe that was never built, and wait for its first patched byte."""
        self._settle()
        port = int(self._service.url.rpartition(":")[2])
        path = f"/v1/weights/{_gib.MODEL}?recipe={recipe.replace('+', '%2B')}"
        headers = [f"Authorization: Bearer {self._service.token}", self._range]
        before = self._blob_bytes()
        client = _load.start("read", port, path, headers)
        with Watched((p.pid for p in self._service.processes), idle_bytes=self._idle) as watched:
            _load.go(client)
            row = _load.result(client)
        self._idle = watched.idle_bytes
        return Run(
            float(str(row["first_at"])) - float(str(row["began"])),
            watched.cpu_s,
            watched.grown_bytes,
            self._blob_bytes() - before,
        )

    def restart(self) -> None:
        """End the service and start it again: a worker that has seen nothing yet."""
        self._settle()
        self._service.restart()
        self._client = Client(self._service.url, self._service.token)
        self._idle = None

    def pull(self, recipe: str, into: Path) -> Path:
        """Download a whole patched file."""
        return self._client.weights.fetch(f"{_gib.MODEL}@{recipe}", into).path

    def _settle(self) -> None:
        """Wait until nothing is under way: a build's whole file is hashed behind it."""
        while any(
            self._client.transport.send("GET", "/v1/operations", params={"state": state}).json()[
                "items"
            ]
            for state in (State.QUEUED, State.RUNNING)
        ):
            time.sleep(0.1)
        time.sleep(0.5)

    def _blob_bytes(self) -> int:
        folder = self._service.home / "blobs" / "sha256"
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Naive:
    """A process that has torch and safetensors imported."""

    def __init__(self, base: Path, patches: Sequence[Path], out: Path) -> None:
        self.out = out
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._naive", str(base), str(out), *map(str, patches)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._line()
        self._idle: int | None = None

    def run(self, scales: Sequence[float], *, is_mapped: bool = True, is_synced: bool) -> Run:
        """Load, add, save."""
        self.out.unlink(missing_ok=True)
        os.sync()  # what was written before is not this run's to wait for
        assert self._process.stdin is not None  # noqa: S101
        with Watched([self._process.pid], idle_bytes=self._idle) as watched:
            order = {"scales": list(scales), "is_mapped": is_mapped, "is_synced": is_synced}
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            took: dict[str, float] = json.loads(self._line())
        self._idle = watched.idle_bytes
        return Run(took["s"], took["cpu_s"], watched.grown_bytes, self.out.stat().st_size)

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None  # noqa: S101
        return self._process.stdout.readline()


class Mergekit:
    """Another interpreter's mergekit, with a full copy of the model for each patch."""

    def __init__(self, python: Path, base: Path, deltas: Sequence[Path], folder: Path) -> None:
        self._command = [str(python.parent / "mergekit-yaml")]
        self._base, self._out, self._folder = base.parent, folder / "merged", folder
        self._tuned = [self._tune(delta, folder / f"tuned-{n}") for n, delta in enumerate(deltas)]

    def _tune(self, delta: Path, into: Path) -> Path:
        into.mkdir()
        weights = load_file(self._base / _gib.FILE)
        for name, moved in load_file(delta).items():
            weights[name] = (weights[name].float() + moved).half()
        save_file(weights, into / _gib.FILE, {"format": "pt"})
        shutil.copy(self._base / "config.json", into)
        return into

    def run(self, scales: Sequence[float]) -> Run:
        """Merge, importing included."""
        shutil.rmtree(self._out, ignore_errors=True)
        recipe = {
            "merge_method": "task_arithmetic",
            "base_model": str(self._base),
            "models": [
                {"model": str(model), "parameters": {"weight": scale}}
                for model, scale in zip(self._tuned, scales, strict=True)
            ],
            "parameters": {"normalize": False},
            "dtype": "float16",
        }
        written = self._folder / "recipe.yml"
        written.write_text(json.dumps(recipe))  # JSON is YAML
        options = ["--no-copy-tokenizer", "--no-write-model-card", "--quiet"]
        found = self._run(str(written), str(self._out), *options)
        size = sum(path.stat().st_size for path in self._out.iterdir())
        return Run(found.wall_s, found.cpu_s, found.private_bytes, size)

    def imported(self) -> Run:
        """Import, and nothing else."""
        return self._run("--help")

    def _run(self, *arguments: str) -> Run:
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen(
            [*self._command, *arguments],
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with Watched([process.pid], idle_bytes=0) as watched:
            if process.wait():
                raise RuntimeError("mergekit failed")
            wall_s = time.monotonic() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Run(wall_s, cpu_s, watched.grown_bytes, 0)


# ── the comparison ───────────────────────────────────────────────────────────────────────────


def compare(
    options: argparse.Namespace, ours: Ours, base: Path, patches: Sequence[Path], repeats: int
) -> list[str]:
    """Run all ways in turn; answers the rows of a table."""
    found: dict[str, list[Run]] = {}

    def note(way: str, run: Run) -> None:
        found.setdefault(way, []).append(run)
        print(f"{way}: {run}", flush=True)

    with tempfile.TemporaryDirectory(prefix="patchbay-cold-") as name:
        folder = Path(name)
        deltas = [folder / f"delta-{number}.safetensors" for number in range(len(patches))]
        for patch, delta in zip(patches, deltas, strict=True):
            save_file(dict(_gib.decoded(patch)), delta)
        # New scales make a recipe that was never built.
        first, last, *every = (
            [round(0.3 + 0.1 * turn + 0.01 * n, 4) for n in range(len(patches))]
            for turn in range(repeats + 2)
        )
        ours.publish(base, patches)
        note(VERIFIED, ours.run(_recipe(patches, first)))
        naive, decoding = (
            Naive(base, given, folder / f"saved-{number}.safetensors")
            for number, given in enumerate((deltas, patches))
        )
        for scales in every:
            note(OURS, ours.run(_recipe(patches, scales)))
            note(SAVED, naive.run(scales, is_synced=False))
        for scales in every[-2:]:
            note(SYNCED, naive.run(scales, is_synced=True))
            note(DECODED, decoding.run(scales, is_synced=True))
        for scales in every[-2:]:  # last: the heap keeps what it was given
            note(READ, naive.run(scales, is_mapped=False, is_synced=False))
        pulled = ours.pull(_recipe(patches, every[-1]), folder / "pulled")
        ours.restart()
        note(NEW, ours.run(_recipe(patches, last)))
        for each in (naive, decoding):
            each.close()
            _check_equal(pulled, each.out)
            each.out.unlink()
        if options.mergekit:
            merger = Mergekit(options.mergekit, base, deltas, folder)
            for scales in every[-2:]:
                imported, merged = merger.imported(), merger.run(scales)
                note(MERGED, merged)
                wall_s, cpu_s = merged.wall_s - imported.wall_s, merged.cpu_s - imported.cpu_s
                apart = replace(merged, wall_s=wall_s, cpu_s=cpu_s)
                note("the same, its import time taken off", apart)
    return _rows({way: middle(runs) for way, runs in found.items()})


def _recipe(patches: Sequence[Path], scales: Sequence[float]) -> str:
    parts = [f"{_name(patch)}={scale}" for patch, scale in zip(patches, scales, strict=True)]
    return "+".join(["main", *parts])


def _name(patch: Path) -> str:
    return patch.name.partition(".")[0]


def _check_equal(pulled: Path, saved: Path) -> None:
    """Tensor by tensor: the other file has its tensors in another order."""
    other = load_file(saved)
    for name, tensor in load_file(pulled).items():
        if not torch.equal(tensor.view(torch.int16), other.pop(name).view(torch.int16)):
            raise SystemExit(f"the two ways differ in tensor {name}")
    if other:
        raise SystemExit(f"{len(other)} tensors are missing")


def _rows(found: dict[str, Run]) -> list[str]:
    ours = found[OURS]
    order = [OURS, VERIFIED, NEW]
    found = {way: found[way] for way in [*order, *(way for way in found if way not in order)]}
    lines = [
        "| way | first byte, s | ratio | CPU-s | ratio | private, MiB | ratio | written, MiB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for way, run in found.items():
        cells = [
            f"{run.wall_s:.2f}",
            f"{run.wall_s / ours.wall_s:.1f}",
            f"{run.cpu_s:.2f}",
            f"{run.cpu_s / ours.cpu_s:.1f}",
            f"{run.private_bytes / MIB:.0f}",
            f"{run.private_bytes / max(1, ours.private_bytes):.1f}",
            f"{run.written_bytes / MIB:.0f}",
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Run it and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dense", action="store_true", help="also a patch on every kernel")
    parser.add_argument("--mergekit", type=Path, help="an interpreter that has mergekit")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="patchbay-cold-") as name:
        folder = Path(name)
        base = _gib.write_base(folder / "base")
        patches = [folder / f"p{number}.rws.safetensors" for number in range(3)]
        for seed, patch in enumerate(patches):
            _gib.write_patch(patch, _gib.TOUCHED, seed + 1)
        patches.sort(key=_gib.sha256_of)  # the order in which a recipe adds them
        dense = folder / "dense.rws.safetensors"
        if options.dense:
            _gib.write_patch(dense, _gib.KERNELS, 9)
        with ServiceProcess(SETTINGS) as service:
            ours = Ours(service, base)
            told = [
                "# The first patched byte of a recipe never built before",
                "",
                "Of 1 GiB in f16, three patches on the same 40 MiB. Ratios are to the first row.",
                "",
                *compare(options, ours, base, patches, options.repeats),
            ]
            if options.dense:
                told += ["", "One patch on every kernel:", ""]
                told += compare(options, ours, base, [dense], 2)
    text = "\n".join([*told, ""])
    print(text)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(text)


if __name__ == "__main__":
    main()

"""The main job of Patchbay, from training to the clean bytes again, through the HTTP interface.

    python -m examples.demo            # then stays up: open the pages, try the commands
    python -m examples.demo --once     # ends when all is done; not zero if a step fails

Trains a small net on scikit-learn's handwritten digits, clean and against two corruptions;
publishes the models; has the worker extract two patches; builds recipes; pulls and evaluates what
they give; moves a channel and reverts it; patches a file in place and takes the patch off again.
"""

import argparse
import hashlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

import rich.box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from safetensors.torch import save_file

from examples import digits
from examples.local_service import LocalService, local_service
from service.client.client import Client
from service.client.problem import ServiceProblem
from service.errors import PatchbayError
from service.schemas.models import ModelVersionView
from service.schemas.operations import OperationView
from service.schemas.patches import PatchVersionView, RequestExtraction
from service.schemas.recipes import MoveView
from service.schemas.wire import EditLine

NAMESPACE: Final = "demo"
CLEAN: Final = f"{NAMESPACE}/digits"
ORIGIN: Final = f"{NAMESPACE}/digits-origin"
CHANNEL: Final = f"{NAMESPACE}/stable"
NOISE, CONTRAST = digits.CORRUPTIONS
LEAST_GAIN: Final = 0.10
"""A patched model must beat the clean one by ten points on its corruption to count as robust."""
LEAST_RECOVERY: Final = 0.5
"""And give back at least half of what the robust model gains."""

console = Console(width=None if sys.stdout.isatty() else 110)


class DemoFailed(Exception):
    """A step did not do what it promises."""


@dataclass(frozen=True)
class Row:
    """One line of the table: what was evaluated, where it lies, how large the patches are."""

    label: str
    file: Path
    patch_bytes: int | None = None


def main() -> int:
    """Run the demo; answers the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--once", action="store_true", help="end when all is done")
    parser.add_argument(
        "--port", type=int, default=0, help="port of the service; default: a free one"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the trainings")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with tempfile.TemporaryDirectory(prefix="patchbay-demo-files-") as folder:
            return _run(Path(folder), given)
    except KeyboardInterrupt:
        return 130
    except (DemoFailed, RuntimeError, ServiceProblem, PatchbayError) as error:
        console.print(f"[bold red]failed:[/] {error}", markup=True, highlight=False)
        return 1


def _run(folder: Path, given: argparse.Namespace) -> int:
    started = time.monotonic()
    weights = train(folder, given.seed)
    step("Start the service on the embedded default: Postgres, a folder of blobs, one worker")
    with local_service(given.port) as service:
        with Client(service.url, service.token) as client:
            versions = publish(client, weights)
            patches = extract(client)
            rows = pull(client, folder, weights, patches)
            evaluate(rows, versions[CLEAN], patches)
            move_channel(client, folder, versions[CLEAN])
        patch_in_place(service, folder, weights[CLEAN])
        console.print(f"\n[bold green]all steps done[/] in {time.monotonic() - started:.0f} s")
        if not given.once:
            stay_up(service)
    return 0


def step(text: str) -> None:
    """Say what comes next."""
    console.print(f"\n[bold]── {text}[/]")


def bar() -> Progress:
    """A progress bar that fits every long step."""
    columns = (TextColumn("{task.description:<44}"), BarColumn(), TaskProgressColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console)


# ── the steps ────────────────────────────────────────────────────────────────────────────────


def train(folder: Path, seed: int) -> dict[str, Path]:
    """Train the four nets; answers their files by model name."""
    step(f"Train a small net on handwritten digits: origin, clean, {NOISE}, {CONTRAST}")
    with bar() as progress:
        task = progress.add_task("training", total=1.0)
        models = digits.train_all(
            lambda name, share: progress.update(task, description=name, completed=share), seed
        )
    files = {}
    for name, state in models.items():
        model = {"origin": ORIGIN, "clean": CLEAN}.get(name, f"{NAMESPACE}/digits-{name}")
        files[model] = folder / f"{name}.safetensors"
        save_file(state, files[model])
    return files


def publish(client: Client, weights: dict[str, Path]) -> dict[str, ModelVersionView]:
    """Publish each net as a model."""
    step("Publish the models")
    versions = {}
    for model, file in weights.items():
        about = EditLine(license="Apache-2.0", labels=["digits"], card=f"Demo net: {file.stem}.")
        client.models.ensure(model, about)
        version = client.models.publish(model, {"model.safetensors": file})
        if not isinstance(version, ModelVersionView):
            raise DemoFailed(f"{model} was not published at once")
        versions[model] = version
        size = f"{version.size_bytes:>10,} bytes"
        console.print(f"  {version.reference:<32} {version.weights_digest[:23]}… {size}")
    return versions


def extract(client: Client) -> dict[str, PatchVersionView]:
    """Have the worker extract a patch for each corruption."""
    step("Extract a patch from each robust model, with the origin, on the worker")
    patches = {}
    for corruption in (NOISE, CONTRAST):
        name = f"{NAMESPACE}/{corruption}"
        about = EditLine(license="Apache-2.0", labels=["digits", corruption])
        client.patches.ensure(name, about)
        wanted = RequestExtraction(
            clean=CLEAN, robust=f"{NAMESPACE}/digits-{corruption}", origin=ORIGIN
        )
        operation = client.patches.extract(name, wanted)
        with bar() as progress:
            done = client.operations.wait(operation.id, watch=_shown(progress, f"extract {name}"))
        assert done.result is not None  # an operation that succeeded has one
        patches[corruption] = client.patches.version(name, done.result["version"])
    return patches


def _shown(progress: Progress, label: str) -> Callable[[OperationView], None]:
    task = progress.add_task(label, total=1.0)
    return lambda operation: progress.update(task, completed=operation.progress)


def pull(
    client: Client,
    folder: Path,
    weights: dict[str, Path],
    patches: dict[str, PatchVersionView],
) -> list[Row]:
    """Build and pull single, scaled and combined recipes; answers what there is to evaluate."""
    step("Build recipes and pull the patched files")
    rows = [Row("clean", weights[CLEAN])]
    rows += [Row(f"robust: {c}", weights[f"{NAMESPACE}/digits-{c}"]) for c in patches]
    recipes = [
        f"main+{NOISE}=1",
        f"main+{CONTRAST}=1",
        f"main+{NOISE}=0.5",
        f"main+{NOISE}=0.5+{CONTRAST}=0.5",
    ]
    for number, recipe in enumerate(recipes):
        with bar() as progress:
            watch = _shown(progress, f"build {recipe}")
            build = client.builds.ready(f"{CLEAN}@{recipe}", watch=watch)
        into = folder / f"recipe-{number}.safetensors"
        client.builds.weights(build.id, build.files[0], into)
        used = [p for c, p in patches.items() if f"{c}=" in recipe]
        rows.append(Row(recipe, into, sum(p.size_bytes for p in used)))
        _same_but_for_the_patched_bytes(weights[CLEAN], into)
    return rows


def _same_but_for_the_patched_bytes(base: Path, patched: Path) -> None:
    """The size and the header are the base's, byte for byte."""
    before, after = base.read_bytes(), patched.read_bytes()
    header = 8 + int.from_bytes(before[:8], "little")
    if len(before) != len(after) or before[:header] != after[:header] or before == after:
        raise DemoFailed(f"{patched.name} is not its base with other bytes in its tensors")


def evaluate(rows: list[Row], base: ModelVersionView, patches: dict[str, PatchVersionView]) -> None:
    """Print the accuracy of every model on every test set, and check that the patches work."""
    step("Evaluate on the held-out digits, clean and corrupted")
    table = Table(box=rich.box.SIMPLE_HEAD)
    table.add_column("model", no_wrap=True)
    for title in ("clean", *patches, "patch bytes", "of the model"):
        table.add_column(title, justify="right")
    found = {row.label: {c: digits.accuracy(row.file, c) for c in (None, *patches)} for row in rows}
    for row in rows:
        scores = [f"{score:.1%}" for score in found[row.label].values()]
        share = f"{row.patch_bytes / base.size_bytes:.2%}" if row.patch_bytes else ""
        table.add_row(row.label, *scores, f"{row.patch_bytes:,}" if row.patch_bytes else "", share)
    console.print(table)
    for corruption in patches:
        clean, robust = found["clean"][corruption], found[f"robust: {corruption}"][corruption]
        patched = found[f"main+{corruption}=1"][corruption]
        recovery = (patched - clean) / (robust - clean)
        console.print(
            f"  {corruption}: {recovery:.0%} of the gap between clean and robust given back"
        )
        if patched - clean < LEAST_GAIN or recovery < LEAST_RECOVERY:
            raise DemoFailed(f"the {corruption} patch does not make the model clearly more robust")


def move_channel(client: Client, folder: Path, base: ModelVersionView) -> None:
    """Put a channel on a recipe, move it, and revert it to clean."""
    step(f"Put channel {CHANNEL} on a recipe, move it, revert it to clean")
    into = folder / "followed.safetensors"
    moves = [client.channels.point(CHANNEL, f"{CLEAN}@main+{NOISE}=1", seen="nothing")]
    tags = []
    changes: tuple[Callable[[], MoveView], ...] = (
        lambda: client.channels.add(CHANNEL, f"{NAMESPACE}/{CONTRAST}", Decimal("0.5"), seen=1),
        lambda: client.channels.revert(CHANNEL, 1, seen=2),
        lambda: client.channels.revert(CHANNEL, "clean", seen=3),
    )
    for change in changes:
        followed = client.channels.weights(CHANNEL, into)
        assert followed is not None  # no tag was sent, so there is no "not modified"
        tags.append(followed.etag)
        moves.append(change())
    final = client.channels.weights(CHANNEL, into)
    assert final is not None  # as above
    for move in moves:
        parts = ", ".join(f"{p.patch}={p.scale}" for p in move.entered) or "clean"
        console.print(f"  move {move.number}: {move.action:<8} {parts}")
    if tags[0] != tags[2] or tags[0] == tags[1]:
        raise DemoFailed("reverting the channel did not give the first file again")
    if final.digest != base.files[0].digest:
        raise DemoFailed(f"reverted to clean, the channel gave {final.digest}")


def patch_in_place(service: LocalService, folder: Path, clean: Path) -> None:
    """Patch a local copy with the overlay alone, undo it, and compare the sha256."""
    step("Patch a local file in place, then take the patch off")
    local = folder / "local.safetensors"
    local.write_bytes(clean.read_bytes())
    before = _sha256(local)
    _patchbay(service, "apply", str(local), f"{CLEAN}@main+{NOISE}=1")
    patched = _sha256(local)
    _patchbay(service, "undo", str(local))
    after = _sha256(local)
    console.print(f"  base     {before}\n  patched  {patched}\n  undone   {after}", highlight=False)
    if patched == before or after != before:
        raise DemoFailed("undo did not give the base's sha256 again")


def _patchbay(service: LocalService, *words: str) -> None:
    console.print(f"  $ patchbay {' '.join(words)}", highlight=False)
    done = subprocess.run(
        [sys.executable, "-m", "service.manage", *words],
        env=service.environment,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise DemoFailed(f"patchbay {words[0]} ended with {done.returncode}: {done.stderr}")


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def stay_up(service: LocalService) -> None:
    """Say what to open and try, and wait for Ctrl-C."""
    recipe = f"main+{NOISE}=0.8"
    console.print(
        f"""
  Open    {service.url}/
          {service.url}/patches/{NAMESPACE}/{NOISE}
          {service.url}/channels/{CHANNEL}
  Try     export PATCHBAY_URL={service.url} PATCHBAY_TOKEN=$(cat {service.home}/owner-token)
          .venv/bin/patchbay ls
          .venv/bin/patchbay pull '{CLEAN}@{recipe}' -o digits.safetensors
          curl -o digits.safetensors '{service.url}/v1/weights/{CLEAN}?recipe=main'
  Ctrl-C ends the service and removes its home.""",
        highlight=False,
        soft_wrap=True,
    )
    if service.process.wait():
        raise DemoFailed(f"the service ended:\n{service.log_tail()}")


if __name__ == "__main__":
    sys.exit(main())

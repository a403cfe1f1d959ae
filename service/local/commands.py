"""`patchbay local`: extract, apply, undo and inspect with no server.

What computes is imported when a command needs it: the rest of the command line starts without
torch.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from service import errors
from service.client.summaries import choice_lines, summary_lines
from service.layout import inplace
from service.layout.pieces import Change, write_copy
from service.layout.sidecar import Sidecar
from service.local import similarity, terminal
from service.local.files import is_record, read_model, read_patch
from service.local.inspection import inspect as inspect_file

app = typer.Typer(help="Extract, apply and inspect patches with no server.", no_args_is_help=True)

Model = Annotated[
    Path, typer.Argument(help="A safetensors file, or a folder of them.", exists=True)
]
Device = Annotated[str, typer.Option(help="cuda:N, cpu or auto.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@app.command("extract")
def extract(
    clean: Model,
    robust: Annotated[
        list[Path], typer.Argument(help="The robust model, or several.", exists=True)
    ],
    *,
    out: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--out",
            help="The patch file, *.rws.safetensors; one a robust model. A dry run needs none.",
        ),
    ] = None,
    origin: Annotated[Path | None, typer.Option(help="Their common start.", exists=True)] = None,
    quality: Annotated[
        str, typer.Option(help="exact, high, standard, small or tiny.")
    ] = "standard",
    energy: Annotated[float | None, typer.Option(help="Share of energy to keep.")] = None,
    first: Annotated[int | None, typer.Option(help="The first kernels in forward order.")] = None,
    globs: Annotated[
        list[str] | None, typer.Option("--names", help="Glob of kernel names; repeatable.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All kernels.")] = False,
    projection: Annotated[str, typer.Option(help="auto or none.")] = "auto",
    forward_order: Annotated[
        Path | None,
        typer.Option(help="A file of tensor names, one a line.", exists=True, dir_okay=False),
    ] = None,
    profile: Annotated[
        list[Path] | None, typer.Option(help="Write the profile here; one a robust model.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be kept; write no patch.")
    ] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Extract a patch from a clean and a robust model.

    Several robust models are compared with the clean one in one pass: give -o for each.
    """
    work = import_work()
    layers = _layers(energy, first, globs, everything=everything)
    order = tuple(forward_order.read_text("utf-8").split()) if forward_order else None
    if out or not dry_run:
        _check_one_each("-o", out or [], robust)
    if profile:
        _check_one_each("--profile", profile, robust)
    with terminal.bar() as told:
        extractions = work.extract(
            clean,
            robust,
            origin,
            work.Asked(layers, projection, quality, dry_run, order),
            out or [],
            profiles=profile or [],
            device=device,
            told=told,
        )
    values, lines = [], []
    for path, made in zip(out or robust, extractions, strict=True):
        lines += _told(path, made.summary, made.patch)
        wrote = (str(path), made.patch.digest) if made.patch else (None, None)
        values.append({"path": wrote[0], "digest": wrote[1], "summary": dict(made.summary)})
    value = values[0] if len(values) == 1 else {"extractions": values}
    terminal.result(value, lines, as_json=as_json)


@app.command("apply")
def apply(
    base: Model,
    *,
    patch: Annotated[list[str], typer.Option(help="FILE=SCALE; may be given several times.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write a copy here; else in place.")
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Apply patch files to a model: in place, or into a copy."""
    work = import_work()
    if out is not None and out.exists() and out.samefile(base):
        raise typer.BadParameter("-o names the model itself; leave it out to patch in place")
    _check_clean(base)
    patches = [read_patch(text) for text in patch]
    with terminal.bar() as told:
        model = read_model(base, told)
        with work.built(model, patches, out or base, device=device, told=told) as change:
            if out is not None:
                digests = _write_copies(base, change, out)
            else:
                done = _in_place(base, change)
                digests = {path: file.digest for path, file in done.files.items()}
            recipe = change.recipe
    value = {"path": str(out or base), "recipe": recipe.reference, "files": digests}
    terminal.result(value, [f"{out or base}  {recipe.reference}"], as_json=as_json)


@app.command("undo")
def undo(target: Model, *, as_json: AsJson = False) -> None:
    """Take off what was patched in place: the file is the base again, byte for byte."""
    now = inplace.undo(target)
    digests = {path: file.digest for path, file in now.files.items()}
    value = {"path": str(target), "recipe": None, "files": digests}
    terminal.result(value, [f"{target}  the clean base"], as_json=as_json)


@app.command("recover")
def recover(target: Model, *, as_json: AsJson = False) -> None:
    """Finish what an interrupted apply or undo left."""
    now = inplace.recover(target)
    recipe = now.recipe.reference if now and now.recipe else None
    value = {"path": str(target), "recipe": recipe}
    terminal.result(value, [f"{target}  {recipe or 'the clean base'}"], as_json=as_json)


@app.command("inspect")
def inspect(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)], *, as_json: AsJson = False
) -> None:
    """Show what a weight file or a patch file holds."""
    found = inspect_file(file)
    if as_json:
        terminal.result(found, [], as_json=True)
        return
    tensors = found.pop("tensors")
    about = {name: value for name, value in found.items() if value not in ({}, None)}
    terminal.result({}, [f"{name}: {value}" for name, value in about.items()], as_json=False)
    columns = list(tensors[0]) if tensors else []
    terminal.table(columns, [[_cell(tensor[column]) for column in columns] for tensor in tensors])


similarity.add(app)


# ── parts ────────────────────────────────────────────────────────────────────────────────────


def import_work() -> Any:
    """What computes on this machine; raises `PartFailed` where torch is not installed."""
    try:
        from service.local import work  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise errors.PartFailed(
            "the local work", "install torch: pip install 'patchbay[torch]'"
        ) from error
    return work


def _layers(
    energy: float | None, first: int | None, globs: list[str] | None, *, everything: bool
) -> dict[str, Any] | str:
    given: list[dict[str, Any] | str] = []
    given += [{"energy": energy}] if energy is not None else []
    given += [{"first": first}] if first is not None else []
    given += [{"names": globs}] if globs else []
    given += ["all"] if everything else []
    if len(given) > 1:
        raise typer.BadParameter("give one of --energy, --first, --names and --all")
    return given[0] if given else {"energy": 0.85}


def _check_one_each(option: str, files: list[Path], robust: list[Path]) -> None:
    if len(set(files)) < len(files) or len(files) != len(robust):
        raise typer.BadParameter(f"give one {option} for each robust model, no file twice")


def _told(path: Path, found: Mapping[str, Any], made: Any) -> list[str]:
    """What one extraction came to, for people."""
    said = [f"  {line}" for line in summary_lines(found)]
    if made:
        return [f"{path}  {made.size_bytes} bytes  {made.digest}", *said]
    choices = [f"  {line}" for line in choice_lines(found)]
    return [f"{path}: nothing written (dry run)", *said, *choices]


def _check_clean(base: Path) -> None:
    """A recipe is made on the base; on a patched file it would name other bytes."""
    now = inplace.recover(base)
    if now is not None and now.recipe is not None:
        raise errors.AlreadyPatched(str(base), now.recipe.reference)


def _in_place(base: Path, change: Change) -> Sidecar:
    if any(file.overlay is not None for file in change.files.values()):
        return inplace.apply(base, change)
    raise errors.BadRecipe(change.recipe.reference, "changes nothing; undo takes a patch off")


def _write_copies(base: Path, change: Change, out: Path) -> dict[str, str]:
    inplace.replaced(out, None)
    if not base.is_dir():
        [(only, wanted)] = change.files.items()
        return {only: write_copy(base, wanted, out)}
    for file in sorted(base.rglob("*")):
        path = file.relative_to(base)
        if file.is_file() and not is_record(path) and path.as_posix() not in change.files:
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, out / path)
    return {
        path: write_copy(base / path, wanted, out / path) for path, wanted in change.files.items()
    }


def _cell(value: Any) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value

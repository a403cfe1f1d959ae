"""Weights: build, pull, and patch in place."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from service import errors, names
from service.cli.output import size_text
from service.cli.session import Run, command
from service.client.downloads import Downloaded
from service.layout import inplace
from service.layout.disk import DISK
from service.layout.pieces import Change, WeightFile, file_digest, write_copy
from service.layout.sidecar import AppliedRecipe, FileRecord, Sidecar, check_path
from service.names import Digest
from service.schemas.recipes import BuildFileView, BuildView

Out = Annotated[
    Path | None,
    typer.Option("-o", "--out", help="File; or folder, for all files of the version."),
]
Reference = Annotated[
    str,
    typer.Argument(metavar="REF", help="namespace/model@RECIPE, such as vision/net@main+fog=0.5."),
]
Target = Annotated[
    Path, typer.Argument(metavar="FILE", help="A weight file, or a folder of them.", exists=True)
]


def add(app: typer.Typer) -> None:
    """Add the commands of this noun."""

    @command(app, "build")
    def build(run: Run, reference: Reference) -> None:
        """Have a recipe built, and wait until it is ready."""
        made = ready(run, reference)
        overlay = sum(file.overlay_size_bytes for file in made.files)
        sizes = f"{size_text(overlay)} on {size_text(made.recipe.size_bytes)}"
        run.out.result(made, [f"{made.id}  {made.recipe.reference}  {sizes}"])

    @command(app, "pull")
    def pull(
        run: Run,
        reference: Reference,
        out: Out = None,
        *,
        patch: Annotated[
            bool, typer.Option("--patch", help="REF names a patch: fetch its file.")
        ] = False,
    ) -> None:
        """Fetch the weights of a model or of a recipe on it, or a patch's file."""
        if patch:
            _pull_patch(run, reference, out)
        else:
            names.model_reference(reference)
            pull_recipe(run, reference, out)

    @command(app, "apply")
    def apply(run: Run, target: Target, reference: Reference, out: Out = None) -> None:
        """Patch a file that holds the base, in place or into a copy; fetches the overlay alone."""
        made = ready(run, reference)
        with change(run, made, target) as wanted:
            if out is not None:
                _write_copies(run, target, wanted, out)
            elif not made.recipe.patches:
                _take_off(run, target)
            else:
                _put_on(run, target, wanted)

    @command(app, "undo")
    def undo(run: Run, target: Target) -> None:
        """Take off what was patched in place: the file is the base again, byte for byte."""
        _take_off(run, target)

    @command(app, "recover")
    def recover(run: Run, target: Target) -> None:
        """Finish what an interrupted apply or undo left."""
        _say(run, target, inplace.recover(target))


# ── building and pulling ─────────────────────────────────────────────────────────────────────


def ready(run: Run, recipe: str) -> BuildView:
    """The build of a recipe, once it is ready."""
    with run.out.operation_bar(f"build {recipe}") as watch:
        return run.client.builds.ready(recipe, watch=watch)


def pull_recipe(run: Run, recipe: str, out: Path | None) -> None:
    """Fetch every weight file of a recipe, verified, with a record of what it is."""
    build = ready(run, recipe)
    target, as_folder = _destination(build, out)
    fetched = fetch(run, build, target, as_folder=as_folder)
    size = size_text(sum(file.size_bytes for file in build.files))
    value = {"path": str(target), "build": build.id, "recipe": build.recipe.reference}
    run.out.result(value | {"files": fetched}, [f"{target}  {size}  {build.recipe.reference}"])


def fetch(run: Run, build: BuildView, target: Path, *, as_folder: bool) -> dict[str, Digest]:
    """Fetch the files of a ready build that are not there yet; answers their digests."""
    recorded = inplace.status(target)
    fetched: dict[str, Digest] = {}
    with run.out.file_bars() as bars:
        for file in build.files:
            check_path(file.path, "the service")
            into = target / file.path if as_folder else target
            if not (digest := _here_already(build, file, into, recorded)):
                staged = into.with_name(into.name + ".pull")
                progress = bars("fetch", file.path)
                found = run.client.builds.weights(build.id, file, staged, progress=progress)
                digest = found.digest
                # A journal must never be carried out on a file that it does not know.
                inplace.replaced(target, None)
                DISK.publish(staged, into)
            fetched[file.path] = digest
    if as_folder:
        _fetch_other_files(run, build, target)
    now = _sidecar(build, fetched) if build.recipe.patches else None
    if now is None or recorded is None or now.files != recorded.files:
        inplace.replaced(target, now)
    return fetched


def _destination(build: BuildView, out: Path | None) -> tuple[Path, bool]:
    """Where to write, and whether it is a folder."""
    single = len(build.files) == 1
    if out is not None:
        return out, out.is_dir() or not single
    if single:
        return Path(Path(build.files[0].path).name), False
    name = names.model_reference(build.recipe.base).name.name
    return Path(name), True


def _here_already(
    build: BuildView, file: BuildFileView, into: Path, recorded: Sidecar | None
) -> Digest | None:
    """The digest of the local file, if it is the one that is wanted."""
    if not into.is_file():
        return None
    if file.overlay_digest is None:
        wanted = file.base_digest
    elif recorded and recorded.recipe and recorded.recipe.digest == build.recipe.digest:
        known = recorded.files.get(file.path)
        wanted = known.digest if known else ""
    else:
        return None
    digest = file_digest(into)
    return digest if digest == wanted else None


def _sidecar(build: BuildView, fetched: dict[str, Digest]) -> Sidecar:
    files = {
        file.path: FileRecord(
            Digest(file.base_digest),
            Digest(file.overlay_digest) if file.overlay_digest else None,
            fetched[file.path],
        )
        for file in build.files
    }
    return Sidecar(1, build.recipe.base, _applied(build), files)


def _applied(build: BuildView) -> AppliedRecipe:
    return AppliedRecipe(Digest(build.recipe.digest), build.recipe.reference)


def _fetch_other_files(run: Run, build: BuildView, folder: Path) -> None:
    """What rides along: config.json, tokenizers, the index of a sharded set."""
    base = names.model_reference(build.recipe.base)
    version = run.client.models.version(str(base.name), base.revision or "main")
    for file in version.files:
        check_path(file.path, "the service")
        into = folder / file.path
        if file.is_weights or (into.is_file() and file_digest(into) == file.digest):
            continue
        run.client.models.download(
            str(base.name), version.number, file.path, into, expected=Digest(file.digest)
        )


def newest(run: Run, patch: str) -> int:
    """The newest version of a patch that is not withdrawn; raises `ThingNotFound`."""
    for version in run.client.patches.versions(patch):
        if version.withdrawn_at is None:
            return version.number
    raise errors.ThingNotFound("version of patch", patch)


def _pull_patch(run: Run, reference: str, out: Path | None) -> None:
    found = names.patch_reference(reference)
    number = found.revision or newest(run, str(found.name))
    version = run.client.patches.version(str(found.name), number)
    into = out or Path(f"{found.name.name}.rws.safetensors")
    if into.is_dir():
        into /= f"{found.name.name}.rws.safetensors"
    with run.out.file_bars() as bars:
        run.client.patches.download(
            str(found.name),
            version.number,
            into,
            expected=Digest(version.digest),
            progress=bars("fetch", into.name),
        )
    run.out.result(
        {"path": str(into), "patch": version.reference, "digest": version.digest},
        [f"{into}  {size_text(version.size_bytes)}  {version.reference}"],
    )


# ── in place ─────────────────────────────────────────────────────────────────────────────────


@contextmanager
def change(run: Run, build: BuildView, target: Path) -> Iterator[Change]:
    """What to make of the files; the overlays lie beside them as long as it lasts."""
    parent = target.absolute().parent
    with TemporaryDirectory(dir=parent, prefix=".patchbay-") as folder, run.out.file_bars() as bars:
        files = {}
        for number, file in enumerate(build.files):
            overlay: Downloaded | None = None
            if file.overlay_digest is not None:
                into, progress = Path(folder, str(number)), bars("fetch", file.path)
                overlay = run.client.builds.overlay(build.id, file, into, progress=progress)
            files[file.path] = WeightFile(
                Digest(file.base_digest),
                overlay.path if overlay else None,
                overlay.digest if overlay else None,
            )
        yield Change(build.recipe.base, _applied(build), files)


def _put_on(run: Run, target: Path, change: Change) -> None:
    try:
        now = inplace.apply(target, change)
    except errors.UndoMissing:
        _fetch_undo(run, target)
        now = inplace.apply(target, change)
    _say(run, target, now)


def _take_off(run: Run, target: Path) -> None:
    try:
        inplace.undo(target)
    except errors.UndoMissing:
        _fetch_undo(run, target)
        inplace.undo(target)
    _say(run, target, None)


def _fetch_undo(run: Run, target: Path) -> None:
    """Fetch the base's bytes of a file that was pulled with its patches on."""
    now = inplace.status(target)
    if now is None or now.recipe is None:
        raise errors.NothingToUndo(str(target))
    build = ready(run, now.recipe.digest)
    parent = target.absolute().parent
    with TemporaryDirectory(dir=parent, prefix=".patchbay-") as folder, run.out.file_bars() as bars:
        undos = {
            file.path: run.client.builds.undo(
                build.id, file, Path(folder, str(number)), progress=bars("undo", file.path)
            ).path
            for number, file in enumerate(build.files)
            if file.overlay_digest is not None
        }
        inplace.supply_undo(target, undos)


def _write_copies(run: Run, target: Path, change: Change, out: Path) -> None:
    if out.exists() and out.samefile(target):
        raise typer.BadParameter("-o names the file itself; leave it out to patch in place")
    if not target.is_dir() and len(change.files) != 1:
        raise errors.SeveralFiles(sorted(change.files))
    digests = {}
    for path, wanted in change.files.items():
        check_path(path, "the service")
        base, into = (target / path, out / path) if target.is_dir() else (target, out)
        inplace.replaced(out, None)
        digests[path] = write_copy(base, wanted, into)
    value = {"path": str(out), "recipe": change.recipe.reference, "files": digests}
    run.out.result(value, [f"{out}  {change.recipe.reference}"])


def _say(run: Run, target: Path, now: Sidecar | None) -> None:
    recipe = now.recipe.reference if now and now.recipe else "the clean base"
    files = {path: file.digest for path, file in now.files.items()} if now else {}
    run.out.result({"path": str(target), "recipe": recipe, "files": files}, [f"{target}  {recipe}"])

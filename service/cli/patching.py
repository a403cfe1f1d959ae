"""Patching files that are here already: little is fetched, and taking off needs no network."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import typer

from service import errors
from service.cli import pulling
from service.cli.output import verified_lines
from service.cli.session import Run
from service.client.downloads import Downloaded
from service.client.problem import ServiceProblem
from service.compute.jobs import BuildJob, BuildMade, ModelInput, PatchInput, WeightInput
from service.layout import inplace
from service.layout.pieces import Change, WeightFile, file_digest, write_copy
from service.layout.sidecar import AppliedRecipe, Place, Sidecar, check_path
from service.names import Digest, model_reference
from service.schemas.recipes import BuildView, RecipeView

NOT_FOUND: Final = 404
THE_BASE: Final = "the clean base"


def put_on(
    run: Run, target: Path, reference: str, out: Path | None = None, *, patch_only: bool = False
) -> None:
    """Make `target`, or a copy of it, what `reference` says.

    Only the overlay is fetched, or with `patch_only` the patches themselves; nothing where it is
    that already.
    """
    recipe = run.client.recipes.resolve(reference)
    if out is None:
        now = inplace.recover(target)
        if now is not None and _is_already(target, now, recipe):
            _say(run, target, now)
            return
        if not recipe.patches:
            _make_base(run, target, reference, now)
            return
    made = _computed(run, recipe, target) if patch_only else _fetched(run, reference, target)
    with made as wanted:
        if out is not None:
            _write_copies(run, target, wanted, out)
        else:
            _say(run, target, _applied(run, target, wanted))


def _is_already(target: Path, now: Sidecar, recipe: RecipeView) -> bool:
    """Whether the record names this recipe, and the files are as it says."""
    if now.recipe is None or now.recipe.digest != recipe.digest:
        return False
    return _digests(target, now.files) == {path: file.digest for path, file in now.files.items()}


def _digests(target: Path, paths: Iterable[str]) -> dict[str, Digest]:
    return {path: file_digest(Place(target.absolute()).weight_file(path)) for path in paths}


# ── what is wanted ───────────────────────────────────────────────────────────────────────────


@contextmanager
def _fetched(run: Run, reference: str, target: Path) -> Iterator[Change]:
    with change(run, pulling.ready(run, reference), target) as wanted:
        yield wanted


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
        yield Change(build.recipe.base, pulling.applied(build), files)


@contextmanager
def _computed(run: Run, recipe: RecipeView, target: Path) -> Iterator[Change]:
    """What to make of the files, computed here from the base that lies here and the patches.

    The bytes are those of every worker: each signature hashes to the digest that its file pins, and
    where the service has carried the recipe out, the overlays are compared with its own.
    """
    if run.build is None:
        raise errors.PartFailed("the local work", "install torch: pip install 'patchbay[torch]'")
    base = model_reference(recipe.base)
    version = run.client.models.version(str(base.name), base.revision or "main")
    inputs = tuple(
        WeightInput(file.path, Digest(file.digest), file.size_bytes)
        for file in version.files
        if file.is_weights
    )
    where = _where(run, target, inputs)
    parent = target.absolute().parent
    with TemporaryDirectory(dir=parent, prefix=".patchbay-") as folder, run.out.file_bars() as bars:
        patches = []
        for number, part in enumerate(recipe.patches):
            into, progress = Path(folder, f"patch-{number}"), bars("fetch", part.patch)
            digest = Digest(part.digest)
            run.client.patches.download(
                part.patch, part.version, into, expected=digest, progress=progress
            )
            where[digest] = into
            patches.append(PatchInput(digest, part.size_bytes, part.patch, part.scale))
        job = BuildJob(
            ModelInput(Digest(version.weights_digest), recipe.base, inputs), tuple(patches)
        )
        made = run.build(job, where, Path(folder))
        _compare(run, recipe, made)
        overlays = {overlay.path: overlay.file for overlay in made.overlays}
        files = {
            file.path: WeightFile(
                file.digest,
                overlays[file.path].path if file.path in overlays else None,
                overlays[file.path].digest if file.path in overlays else None,
            )
            for file in inputs
        }
        applied = AppliedRecipe(Digest(recipe.digest), recipe.reference)
        yield Change(recipe.base, applied, files)


def _where(run: Run, target: Path, inputs: tuple[WeightInput, ...]) -> dict[Digest, Path]:
    """Where the base lies here; what is patched is taken off first.

    Raises `FileNotAsRecorded`, `SeveralFiles`.
    """
    if inplace.recover(target) is not None:
        _undone(run, target)
    if not target.is_dir() and len(inputs) != 1:
        raise errors.SeveralFiles(sorted(file.path for file in inputs))
    where = {}
    for file in inputs:
        check_path(file.path, "the service")
        path = target / file.path if target.is_dir() else target
        if not path.is_file():
            raise errors.ThingNotFound("weight file", str(path))
        actual = file_digest(path)
        if actual != file.digest:
            raise errors.FileNotAsRecorded(str(path), file.digest, actual)
        where[file.digest] = path
    return where


def _compare(run: Run, recipe: RecipeView, made: BuildMade) -> None:
    """Compare overlays with those of the service, where it has made them; raises `NotVerified`."""
    try:
        known = run.client.builds.get(recipe.digest)
    except ServiceProblem as problem:
        if problem.status != NOT_FOUND:
            raise
        run.out.note("computed here; the service has not built this recipe to compare with")
        return
    expected = {file.path: file.overlay_digest for file in known.files}
    for overlay in made.overlays:
        wanted = expected.get(overlay.path)
        if wanted is not None and wanted != overlay.file.digest:
            raise errors.NotVerified(
                f"the overlay of {overlay.path}",
                wanted,
                overlay.file.digest,
                "apply without --patch-only, and report the difference",
            )
    run.out.note("computed here; equal to the service's overlays, digest for digest")


# ── in place ─────────────────────────────────────────────────────────────────────────────────


def _applied(run: Run, target: Path, wanted: Change) -> Sidecar:
    """Put a change on; of a build that has no record here, the service is asked which it is."""
    for _ in range(2):  # once more with a record, once more with its undo
        try:
            return inplace.apply(target, wanted)
        except errors.FileNotAsRecorded as error:
            if inplace.status(target) is not None or not _recognised(run, target, error.actual):
                raise
        except errors.UndoMissing:
            _fetch_undo(run, target)
    return inplace.apply(target, wanted)


def _recognised(run: Run, target: Path, digest: str) -> bool:
    """Record which build `target` is, if the service knows a patched file of this digest."""
    for build in run.client.builds.listed(file=Digest(digest)):
        known = {file.path: Digest(file.sha256) for file in build.files if file.sha256}
        untouched = {file.path: Digest(file.base_digest) for file in build.files}
        inplace.replaced(target, pulling.sidecar(build, untouched | known))
        run.out.note(f"{target} is {build.recipe.reference}")
        return True
    return False


def _make_base(run: Run, target: Path, reference: str, now: Sidecar | None) -> None:
    """Make a build of a base that base; raises `FileNotAsRecorded` for one of another base."""
    build = pulling.ready(run, reference)
    wanted = {file.path: Digest(file.base_digest) for file in build.files}
    if not target.is_dir() and len(wanted) != 1:
        raise errors.SeveralFiles(sorted(wanted))
    if now is None:
        found = _digests(target, wanted)
        if found == wanted:
            _say_base(run, target, found)
            return
        path = next(path for path in wanted if found[path] != wanted[path])
        if not _recognised(run, target, found[path]):
            raise errors.FileNotAsRecorded(str(target), wanted[path], found[path])
        now = inplace.status(target)
    own = {path: file.base_digest for path, file in now.files.items()} if now else {}
    for path, digest in wanted.items():
        if own.get(path) != digest:
            raise errors.FileNotAsRecorded(str(target), digest, own.get(path, "none"))
    take_off(run, target)


def take_off(run: Run, target: Path) -> None:
    """Make a patched file its base again; raises `NothingToUndo`."""
    base = _undone(run, target)
    _say_base(run, target, {path: file.digest for path, file in base.files.items()})


def _undone(run: Run, target: Path) -> Sidecar:
    try:
        return inplace.undo(target)
    except errors.UndoMissing:
        _fetch_undo(run, target)
        return inplace.undo(target)


def _fetch_undo(run: Run, target: Path) -> None:
    """Fetch the base's bytes of a file that was pulled with its patches on."""
    now = inplace.status(target)
    if now is None or now.recipe is None:
        raise errors.NothingToUndo(str(target))
    build = pulling.ready(run, now.recipe.digest)
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
    _told(run, out, change.recipe.reference, digests)


def _say(run: Run, target: Path, now: Sidecar) -> None:
    recipe = now.recipe.reference if now.recipe else THE_BASE
    _told(run, target, recipe, {path: file.digest for path, file in now.files.items()})


def _say_base(run: Run, target: Path, files: Mapping[str, Digest]) -> None:
    _told(run, target, THE_BASE, files)


def _told(run: Run, target: Path, recipe: str, files: Mapping[str, Digest]) -> None:
    """Print what a file is now; its bytes were hashed after the last of them was written."""
    value = {"path": str(target), "recipe": recipe, "files": dict(files), "verified": True}
    run.out.result(value, [f"{target}  {recipe}", *verified_lines(files)])


def recover(run: Run, target: Path) -> None:
    """Finish what an interrupted run left, and print what is recorded of the file then."""
    now = inplace.recover(target)
    recipe = now.recipe.reference if now and now.recipe else THE_BASE
    files = {path: file.digest for path, file in now.files.items()} if now else {}
    run.out.result({"path": str(target), "recipe": recipe, "files": files}, [f"{target}  {recipe}"])

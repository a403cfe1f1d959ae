"""Fetching: builds, the files that they give, patch files; verified, with a record."""

from pathlib import Path

from service import errors, names
from service.cli.output import size_text, verified_lines
from service.cli.session import Run
from service.layout import inplace
from service.layout.disk import DISK
from service.layout.pieces import file_digest
from service.layout.sidecar import AppliedRecipe, FileRecord, Sidecar, check_path
from service.names import Digest
from service.schemas.recipes import BuildFileView, BuildView


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
    line = f"{target}  {size}  {build.recipe.reference}"
    run.out.result(value | {"files": fetched, "verified": True}, [line, *verified_lines(fetched)])


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
    now = sidecar(build, fetched) if build.recipe.patches else None
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


def sidecar(build: BuildView, fetched: dict[str, Digest]) -> Sidecar:
    """The record of files that were fetched, or found, as a build gives them."""
    files = {
        file.path: FileRecord(
            Digest(file.base_digest),
            Digest(file.overlay_digest) if file.overlay_digest else None,
            fetched[file.path],
        )
        for file in build.files
    }
    return Sidecar(1, build.recipe.base, applied(build), files)


def applied(build: BuildView) -> AppliedRecipe:
    """What a build's record says of its recipe."""
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


def pull_patch(run: Run, reference: str, out: Path | None) -> None:
    """Fetch the file of a patch version, verified."""
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
        {"path": str(into), "patch": version.reference, "digest": version.digest, "verified": True},
        [
            f"{into}  {size_text(version.size_bytes)}  {version.reference}",
            *verified_lines({into.name: Digest(version.digest)}),
        ],
    )

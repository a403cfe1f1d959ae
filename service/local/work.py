"""Extract and build on this machine, with the code that the service's workers run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from service.compute.carry import carry_out, open_device
from service.compute.jobs import BuildJob, BuildMade, ExtractJob, ExtractMade
from service.layout.disk import DISK, read_chunks
from service.layout.pieces import Change, WeightFile
from service.layout.sidecar import AppliedRecipe
from service.local.files import (
    LocalModel,
    LocalPatch,
    Told,
    opened,
    read_model,
    recipe_of,
    recipe_text,
)
from service.names import Digest


@dataclass(frozen=True, slots=True)
class Asked:
    """What to extract, as in a request for an extraction."""

    layers: dict[str, Any] | str
    projection: str
    quality: str
    dry_run: bool
    forward_order: tuple[str, ...] | None = None


def extract(
    clean: Path,
    robust: Path,
    origin: Path | None,
    asked: Asked,
    out: Path,
    *,
    profile: Path | None,
    device: str,
    told: Told,
) -> ExtractMade:
    """Write the patch file of a pair of local models; a dry run writes none.

    Raises what `compute.extract` raises and what reading the models does.
    """
    models = {
        side: read_model(path, told)
        for side, path in (("clean", clean), ("robust", robust), ("origin", origin))
        if path is not None
    }
    job = ExtractJob(
        models["clean"].model,
        models["robust"].model,
        models["origin"].model if "origin" in models else None,
        asked.layers,
        asked.projection,
        asked.quality,
        asked.dry_run,
        asked.forward_order,
    )
    files = {digest: path for model in models.values() for digest, path in model.digests.items()}
    with (
        TemporaryDirectory(dir=out.absolute().parent, prefix=".patchbay-") as scratch,
        opened(files) as open_read,
    ):
        made = carry_out(job, open_read, Path(scratch), open_device(device)[0], told)
        assert isinstance(made, ExtractMade)  # noqa: S101  # an ExtractJob makes nothing else
        if made.patch is not None:
            _publish(made.patch.path, out)
        if profile is not None:
            _publish(made.profile.path, profile)
    return made


def _publish(made: Path, out: Path) -> None:
    with made.open("rb") as file:
        DISK.write_file(out, read_chunks(file, 0, made.stat().st_size))


@contextmanager
def built(
    base: LocalModel, patches: list[LocalPatch], beside: Path, *, device: str, told: Told
) -> Iterator[Change]:
    """Carry out a recipe: the overlays lie beside `beside` as long as the context lasts.

    Raises what `compute.build` raises, and `BadScale`.
    """
    digest, canonical = recipe_of(base.model.digest, patches)
    files = base.digests | {one.patch.digest: one.path for one in patches}
    with TemporaryDirectory(dir=beside.absolute().parent, prefix=".patchbay-") as scratch:
        job = BuildJob(base.model, canonical)
        made = build(job, files, Path(scratch), device=device, told=told)
        overlays = {overlay.path: overlay.file for overlay in made.overlays}
        yield Change(
            base.model.reference,
            AppliedRecipe(digest, recipe_text(base.model.reference, canonical)),
            {
                file.path: WeightFile(
                    file.digest,
                    overlays[file.path].path if file.path in overlays else None,
                    overlays[file.path].digest if file.path in overlays else None,
                )
                for file in base.model.files
            },
        )


def build(
    job: BuildJob, where: Mapping[Digest, Path], scratch: Path, *, device: str, told: Told
) -> BuildMade:
    """Carry a recipe out into the folder `scratch`; `where` has each input by its digest.

    Raises what `compute.build` raises.
    """
    with opened(where) as open_read:
        made = carry_out(job, open_read, scratch, open_device(device)[0], told)
    assert isinstance(made, BuildMade)  # noqa: S101  # a BuildJob makes nothing else
    return made

"""Extract and build on this machine, with the code that the service's workers run."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from service import errors
from service.compute.carry import carry_out, open_device
from service.compute.jobs import (
    BuildJob,
    BuildMade,
    ExtractJob,
    ExtractMade,
    ExtractManyJob,
    ExtractManyMade,
    ModelInput,
    PatchInput,
)
from service.compute.opening import open_model, open_patch
from service.layout import fit
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

_NAMED: Final = 10


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
    robust: Sequence[Path],
    origin: Path | None,
    asked: Asked,
    outs: Sequence[Path],
    *,
    profiles: Sequence[Path],
    device: str,
    told: Told,
) -> tuple[ExtractMade, ...]:
    """Write the patch file of each robust model, and profiles where wanted; a dry run no patch.

    `outs` names one file a robust model, or none for a dry run.
    Raises what `compute.extract` raises and what reading the models does.
    """
    base = read_model(clean, told)
    first, *further = [read_model(path, told) for path in robust]
    start = read_model(origin, told) if origin else None
    job = ExtractJob(
        base.model,
        first.model,
        start.model if start else None,
        asked.layers,
        asked.projection,
        asked.quality,
        asked.dry_run,
        asked.forward_order,
    )
    many = ExtractManyJob(job, tuple(model.model for model in further))
    files: dict[Digest, Path] = {}
    for model in (base, first, *further, *([start] if start else [])):
        files |= model.digests
    with (
        TemporaryDirectory(dir=_beside(outs), prefix=".patchbay-") as scratch,
        opened(files) as open_read,
    ):
        made = carry_out(many, open_read, Path(scratch), open_device(device)[0], told)
        assert isinstance(made, ExtractManyMade)  # noqa: S101  # such a job makes nothing else
        for one, out in zip(made.extractions, outs, strict=bool(outs)):
            if one.patch is not None:
                _publish(one.patch.path, out)
        for one, profile in zip(made.extractions, profiles, strict=False):
            _publish(one.profile.path, profile)
    return made.extractions


def _beside(outs: Sequence[Path]) -> Path | None:
    """Where files can be moved into place from; anywhere, if there are none."""
    return outs[0].absolute().parent if outs else None


def _publish(made: Path, out: Path) -> None:
    with made.open("rb") as file:
        DISK.write_file(out, read_chunks(file, 0, made.stat().st_size))


@contextmanager
def built(
    base: LocalModel, patches: list[LocalPatch], beside: Path, *, device: str, told: Told
) -> Iterator[Change]:
    """Carry out a recipe: the overlays lie beside `beside` as long as the context lasts.

    Raises what `compute.build` raises, `BadScale`, and `DoesNotFit`.
    """
    digest, canonical = recipe_of(base.model.digest, patches)
    files = base.digests | {one.patch.digest: one.path for one in patches}
    _check_fit(base.model, canonical, files)
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


def _check_fit(
    base: ModelInput, patches: Sequence[PatchInput], files: Mapping[Digest, Path]
) -> None:
    """What the registry checks of a recipe: a patch of which nothing fits would change nothing."""
    with opened(files) as open_read:
        headers = open_model(base, open_read).headers
        for patch in patches:
            reasons = fit.check(headers, open_patch(patch, open_read).patch.tensors)
            if reasons:
                more = max(0, len(reasons) - _NAMED)
                raise errors.DoesNotFit(patch.reference, base.reference, reasons[:_NAMED], more)


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

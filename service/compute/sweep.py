"""Carry out many recipes on one base, in one walk over each of its weight files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from service import errors
from service.compute.build import BuildResult, Recipe, build_overlays
from service.compute.crew import crew
from service.compute.jobs import BuildMade, MadeFile, MadeOverlay, SweepJob, SweepMade
from service.compute.opening import OpenRead, Told, open_model, open_patch
from service.compute.sources import ModelFiles, PatchSource
from service.layout import fit


def sweep(
    job: SweepJob, open_read: OpenRead, scratch: Path, device: torch.device, progress: Told
) -> SweepMade:
    """Carry out recipes on one base; what equals an overlay of a recipe before is written again.

    A recipe whose scales overflow is answered with its error. Raises what `build_overlays` raises.
    """
    base = open_model(job.base, open_read)
    recipes = _recipes(job, open_read, device)
    paths = [_touched(base, [source for source, _ in recipe]) for recipe in recipes]
    every = sorted({path for each in paths for path in each})
    found: list[dict[str, tuple[Path, BuildResult | errors.ScaleOverflows]]] = [{} for _ in recipes]
    for number, path in enumerate(every):

        def told(done: float, number: int = number, path: str = path) -> None:
            progress((number + done) / len(every), f"building {path}")

        outs = {
            scratch / f"overlay-{place}-{number}": place
            for place, touched in enumerate(paths)
            if path in touched
        }
        made = build_overlays(
            base.headers,
            path,
            base.files[path].read,
            {out: recipes[place] for out, place in outs.items()},
            device=device,
            progress=told,
        )
        for out, result in made.items():
            found[outs[out]][path] = out, result
    return SweepMade(tuple(map(_overlays, found)))


def _overlays(
    found: Mapping[str, tuple[Path, BuildResult | errors.ScaleOverflows]],
) -> BuildMade | errors.PatchbayError:
    """A recipe's overlays by path, unless one of them overflows."""
    overlays = []
    for path, (out, result) in found.items():
        if isinstance(result, errors.ScaleOverflows):
            return result
        file = MadeFile(out, result.digest, result.size_bytes)
        overlays.append(MadeOverlay(path, file, result.header.raw))
    return BuildMade(tuple(overlays))


def _recipes(job: SweepJob, open_read: OpenRead, device: torch.device) -> list[Recipe]:
    """The patches of each recipe; a patch of several is opened once."""
    every = {patch.digest: patch for recipe in job.recipes for patch in recipe}
    with crew(device) as threads:  # each is hashed as it is opened
        opened = threads.map(lambda patch: open_patch(patch, open_read), every.values())
        sources = dict(zip(every, opened, strict=True))
    return [[(sources[patch.digest], patch.scale) for patch in recipe] for recipe in job.recipes]


def _touched(base: ModelFiles, patches: Sequence[PatchSource]) -> set[str]:
    """The weight files that a tensor of a patch lies in."""
    found = [fit.resolve(base.headers, source.patch.tensors) for source in patches]
    return {address.path for each in found for address in each.values()}

"""Carry a job out on a device: open what it names, compute, answer what was made."""

import os
import re
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import torch

from service import errors
from service.compute import extract
from service.compute.build import build_overlay
from service.compute.digest import digest_files
from service.compute.jobs import (
    BuildJob,
    BuildMade,
    DigestJob,
    DigestMade,
    ExtractJob,
    ExtractMade,
    Job,
    Made,
    MadeFile,
    MadeOverlay,
    MadeSignature,
    ModelInput,
    VerifyJob,
    VerifyMade,
)
from service.compute.measure import ExtractOptions
from service.compute.pairing import Trio
from service.compute.sources import ModelFiles, PatchSource, WeightFile
from service.compute.verify import verify_patch
from service.layout import fit, patchfile
from service.layout.disk import reader
from service.layout.header import Read, read_header
from service.layout.patchfile import PatchFile
from service.names import Digest
from service.tensors.selection import parse_layers, parse_projection, parse_quality

OpenRead = Callable[[Digest], Read]
"""Opens a blob for reads of byte ranges."""
Told = Callable[[float, str], None]
"""Told how much is done, from 0 to 1, and what is being done."""

_CUDA: Final = re.compile(r"cuda(?::(\d+))?")


def open_device(wanted: str) -> tuple[torch.device, str]:
    """The device that `cuda:N`, `cpu` or `auto` means, made ready, and its name.

    Raises `DeviceUnusable`.
    """
    torch.set_num_threads(_usable_cores())
    if wanted == "auto":
        wanted = "cuda:0" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        return torch.device("cpu"), "cpu"
    match = _CUDA.fullmatch(wanted)
    if match is None:
        raise errors.DeviceUnusable(wanted, "there is no such kind of device")
    if not torch.cuda.is_available():
        raise errors.DeviceUnusable(wanted, "torch finds no CUDA device here")
    number, count = int(match[1] or 0), torch.cuda.device_count()
    if number >= count:
        raise errors.DeviceUnusable(wanted, f"torch finds {count} CUDA device(s) here")
    device = torch.device("cuda", number)
    try:
        torch.zeros(1, device=device)
    except RuntimeError as error:
        raise errors.DeviceUnusable(wanted, str(error).partition("\n")[0]) from error
    return device, str(device)


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def carry_out(
    job: Job, open_read: OpenRead, scratch: Path, device: torch.device, progress: Told
) -> Made:
    """Carry a job out; the files it makes lie in the empty folder `scratch`.

    Raises what `extract`, `build_overlay` and `verify_patch` raise, and what `open_read` does.
    """
    match job:
        case ExtractJob():
            return _extract(job, open_read, scratch, device, progress)
        case BuildJob():
            return _build(job, open_read, scratch, device, progress)
        case VerifyJob():
            progress(0.0, "decoding the patch file")
            verified = verify_patch(open_read(job.digest), job.size_bytes, device)
            return VerifyMade(_signature(verified.patch, verified.summary))
        case DigestJob():
            return DigestMade(digest_files(job.plans, open_read, progress))


def _extract(
    job: ExtractJob, open_read: OpenRead, scratch: Path, device: torch.device, progress: Told
) -> ExtractMade:
    trio = Trio(
        _model(job.clean, open_read),
        _model(job.robust, open_read),
        _model(job.origin, open_read) if job.origin else None,
    )
    options = ExtractOptions(
        layers=parse_layers(job.layers),
        projection=parse_projection(job.projection),
        quality=parse_quality(job.quality),
        forward_order=job.forward_order,
        recorded_order=job.recorded_order,
    )
    path, profile_path = scratch / "patch", scratch / "profile"

    def told(done: float) -> None:
        progress(done, "comparing the models" if job.dry_run else "extracting the signature")

    if job.dry_run:
        made = extract.dry_run(trio, options, profile_path, device=device, progress=told)
    else:
        made = extract.extract(trio, options, path, profile_path, device=device, progress=told)
    profile = MadeFile(profile_path, made.profile_digest, made.profile_size)
    if made.digest is None or made.size_bytes is None:
        return ExtractMade(None, None, profile, made.summary)
    written = _read_patch(path, made.size_bytes)
    file = MadeFile(path, made.digest, made.size_bytes)
    return ExtractMade(file, _signature(written, made.summary), profile, made.summary)


def _read_patch(path: Path, size_bytes: int) -> PatchFile:
    with path.open("rb") as file:
        return patchfile.read(reader(file), size_bytes)


def _signature(patch: PatchFile, summary: dict[str, Any]) -> MadeSignature:
    tensors = [fit.Place.of(tensor).to_json() for tensor in patch.tensors]
    stated = {side: patch.input_digest(side) for side in ("clean", "robust", "origin")}
    inputs = {side: digest for side, digest in stated.items() if digest is not None}
    return MadeSignature(tensors, summary, inputs)


def _build(
    job: BuildJob, open_read: OpenRead, scratch: Path, device: torch.device, progress: Told
) -> BuildMade:
    base = _model(job.base, open_read)
    patches = _patches(job, open_read)
    paths = _touched(base, patches)
    overlays: list[MadeOverlay] = []
    for number, path in enumerate(paths):

        def told(done: float, number: int = number, path: str = path) -> None:
            progress((number + done) / len(paths), f"building {path}")

        out = scratch / f"overlay-{number}"
        made = build_overlay(
            base.headers,
            path,
            base.files[path].read,
            patches,
            out,
            device=device,
            progress=told,
        )
        file = MadeFile(out, made.digest, made.size_bytes)
        overlays.append(MadeOverlay(path, file, made.header.raw))
    return BuildMade(tuple(overlays))


def _patches(job: BuildJob, open_read: OpenRead) -> list[tuple[PatchSource, Decimal]]:
    patches = []
    for patch in job.patches:
        read = open_read(patch.digest)
        source = PatchSource(patchfile.read(read, patch.size_bytes), read)
        patches.append((source, patch.scale))
    return patches


def _touched(base: ModelFiles, patches: Sequence[tuple[PatchSource, Decimal]]) -> list[str]:
    """The weight files that a tensor of a patch lies in."""
    found = [fit.resolve(base.headers, source.patch.tensors) for source, _ in patches]
    return sorted({address.path for each in found for address in each.values()})


def _model(model: ModelInput, open_read: OpenRead) -> ModelFiles:
    files = {}
    for file in model.files:
        read = open_read(file.digest)
        files[file.path] = WeightFile(read_header(read, file.size_bytes, file.path), read)
    return ModelFiles(files, model.digest, model.reference)

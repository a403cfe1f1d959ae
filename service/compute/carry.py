"""Carry a job out on a device: open what it names, compute, answer what was made."""

import os
import re
import sys
from pathlib import Path
from typing import Any, Final

import torch

from service import errors
from service.compute import catalogue, extract
from service.compute.digest import digest_files
from service.compute.extract import ExtractResult, Outputs
from service.compute.ingest.convert import convert
from service.compute.jobs import (
    BuildJob,
    BuildMade,
    CompareJob,
    CompareMade,
    ConvertJob,
    DigestJob,
    DigestMade,
    ExtractJob,
    ExtractMade,
    ExtractManyJob,
    ExtractManyMade,
    IdentifyJob,
    IdentifyMade,
    IndexJob,
    IndexMade,
    Job,
    Made,
    MadeFile,
    MadeSignature,
    SweepJob,
    VerifyJob,
    VerifyMade,
)
from service.compute.measure import ExtractOptions
from service.compute.opening import OpenRead, Told, open_model
from service.compute.pairing import Family
from service.compute.sources import PatchSource
from service.compute.sweep import sweep
from service.compute.verify import verify_patch
from service.layout import fit, patchfile
from service.layout.disk import reader
from service.layout.patchfile import PatchFile
from service.tensors.selection import parse_layers, parse_projection, parse_quality

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


def carry_out(  # noqa: PLR0911 - a table of the kinds of jobs
    job: Job, open_read: OpenRead, scratch: Path, device: torch.device, progress: Told
) -> Made:
    """Carry a job out; the files it makes lie in the empty folder `scratch`.

    Raises what `extract`, `build_overlay` and `verify_patch` raise, and what `open_read` does.
    """
    match job:
        case ConvertJob():
            return convert(job, open_read, scratch, progress)
        case ExtractJob():
            return _extract(job, open_read, scratch, device, progress)
        case ExtractManyJob():
            return _extract_many(job, open_read, scratch, device, progress)
        case SweepJob():
            return sweep(job, open_read, scratch, device, progress)
        case BuildJob():
            return _build(job, open_read, scratch, device, progress)
        case VerifyJob():
            progress(0.0, "decoding the patch file")
            verified = verify_patch(open_read(job.digest), job.size_bytes, device)
            return VerifyMade(_signature(verified.patch, verified.summary))
        case DigestJob():
            return DigestMade(digest_files(job.plans, job.sizes, open_read, progress))
        case IndexJob() | CompareJob() | IdentifyJob():
            return _compare(job, open_read, scratch, device, progress)


def _extract(
    job: ExtractJob, open_read: OpenRead, scratch: Path, device: torch.device, progress: Told
) -> ExtractMade:
    many = ExtractManyJob(job, ())
    return _extract_many(many, open_read, scratch, device, progress).extractions[0]


def _extract_many(
    many: ExtractManyJob, open_read: OpenRead, scratch: Path, device: torch.device, progress: Told
) -> ExtractManyMade:
    job, robust = many.first, (many.first.robust, *many.further)
    family = Family(
        open_model(job.clean, open_read),
        tuple(open_model(model, open_read) for model in robust),
        open_model(job.origin, open_read) if job.origin else None,
    )
    options = ExtractOptions(
        layers=parse_layers(job.layers),
        projection=parse_projection(job.projection),
        quality=parse_quality(job.quality),
        forward_order=job.forward_order,
        recorded_order=job.recorded_order,
    )
    outs = [
        Outputs(None if job.dry_run else scratch / f"patch-{number}", scratch / f"profile-{number}")
        for number in range(len(robust))
    ]
    doing = "comparing the models" if job.dry_run else "extracting the signature"
    results = extract.extract_all(
        family, options, outs, device=device, progress=lambda done: progress(done, doing)
    )
    made = [_made(out, result) for out, result in zip(outs, results, strict=True)]
    return ExtractManyMade(tuple(made))


def _made(out: Outputs, result: ExtractResult) -> ExtractMade:
    profile = MadeFile(out.profile, result.profile_digest, result.profile_size)
    if out.patch is None or result.digest is None or result.size_bytes is None:
        return ExtractMade(None, None, profile, result.summary)
    written = _read_patch(out.patch, result.size_bytes)
    file = MadeFile(out.patch, result.digest, result.size_bytes)
    return ExtractMade(file, _signature(written, result.summary), profile, result.summary)


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
    recipes = SweepJob(job.base, (job.patches,))
    [made] = sweep(recipes, open_read, scratch, device, progress).recipes
    if isinstance(made, errors.PatchbayError):
        raise made
    return made


def _compare(
    job: IndexJob | CompareJob | IdentifyJob,
    open_read: OpenRead,
    scratch: Path,
    device: torch.device,
    progress: Told,
) -> IndexMade | CompareMade | IdentifyMade:
    if isinstance(job, IndexJob):
        return catalogue.index(job, open_read, device, progress)
    if isinstance(job, CompareJob):
        return catalogue.compare_all(job, open_read, device, progress)
    if isinstance(job.unknown, ExtractJob):
        made = _extract(job.unknown, open_read, scratch, device, progress).patch
        assert made is not None  # noqa: S101  # no dry run was asked for
        with made.path.open("rb") as file:
            read = reader(file)
            unknown = PatchSource(patchfile.read(read, made.size_bytes), read)
            return catalogue.identify(unknown, job.known, open_read, device, progress)
    unknown = catalogue.open_signature(job.unknown, open_read)
    return catalogue.identify(unknown, job.known, open_read, device, progress)

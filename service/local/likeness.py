"""Compare patch files on this machine, with the code that the service's workers run."""

from collections.abc import Sequence
from pathlib import Path

from service.compute.carry import carry_out, open_device
from service.compute.jobs import CompareJob, CompareMade, SignatureInput
from service.layout.pieces import file_digest
from service.local.files import Told, opened
from service.tensors.judgement import Candidate, Verdict, judge


def compare(files: Sequence[Path], *, device: str, told: Told) -> CompareMade:
    """Compare patch files each with each; raises what reading them does."""
    digests = [file_digest(file) for file in files]
    inputs = tuple(
        SignatureInput(number, digest, file.stat().st_size)
        for number, (file, digest) in enumerate(zip(files, digests, strict=True))
    )
    with opened(dict(zip(digests, files, strict=True))) as open_read:
        made = carry_out(CompareJob(inputs), open_read, Path(), open_device(device)[0], told)
    assert isinstance(made, CompareMade)  # noqa: S101  # a CompareJob makes nothing else
    return made


def identify(unknown: Path, known: Sequence[Path], *, device: str, told: Told) -> Verdict:
    """Judge a patch file by others, whose names are their labels."""
    found = compare([unknown, *known], device=device, told=told).comparison
    candidates = []
    for number, file in enumerate(known, start=1):
        shares = found["shared"][0][number], found["shared"][number][0]
        if min(shares) > 0:
            label = file.name.removesuffix(".safetensors").removesuffix(".rws")
            cosine = found["cosines"][0][number]
            candidates.append(Candidate(str(file), (label,), cosine, 0.0, *shares))
    return judge(candidates)

"""A whole build in files: base, patch files of format version 1, and the overlay they make.

`build/base.safetensors` holds tensors of all four dtypes, with NaN, infinities, denormals and
negative zeros among them; the patches hold all codecs of their version, biases, norms and running
variances. Every path to an overlay gives these bytes, on every device and release.
"""

from decimal import Decimal
from pathlib import Path
from shutil import copyfile

import pytest
import torch
from safetensors.torch import load

from service.cli import exits
from service.compute.carry import carry_out
from service.compute.jobs import BuildJob, BuildMade, ModelInput, PatchInput, WeightInput
from service.layout.header import Read
from service.local.commands import app
from service.names import Digest, canonical_recipe, digest_of, weights_digest
from service.tensors import raw

HERE = Path(__file__).with_name("build")
NAME = "model.safetensors"
SCALES = {"fog": "0.7", "noise": "-1.3", "blur": "0.25"}


def _content(name: str) -> bytes:
    return (HERE / f"{name}.safetensors").read_bytes()


def _job() -> tuple[BuildJob, dict[Digest, bytes]]:
    base = _content("base")
    patches = {name: _content(f"{name}.rws") for name in SCALES}
    version = weights_digest({NAME: (digest_of(base), len(base))})
    canonical = canonical_recipe(
        version, ((digest_of(patches[name]), Decimal(scale)) for name, scale in SCALES.items())
    )
    stored = {digest_of(content): content for content in (base, *patches.values())}
    model = ModelInput(version, "golden", (WeightInput(NAME, digest_of(base), len(base)),))
    inputs = tuple(
        PatchInput(digest, len(stored[digest]), "golden", scale)
        for digest, scale in canonical.patches
    )
    return BuildJob(model, inputs), stored


def _built(device: str, scratch: Path) -> bytes:
    job, stored = _job()

    def open_read(digest: Digest) -> Read:
        return lambda start, end: stored[digest][start:end]

    made = carry_out(job, open_read, scratch, torch.device(device), lambda *_: None)
    assert isinstance(made, BuildMade)
    return made.overlays[0].file.path.read_bytes()


def test_a_worker_makes_the_golden_overlay(tmp_path: Path) -> None:
    assert _built("cpu", tmp_path) == _content("overlay")


@pytest.mark.gpu
def test_a_worker_with_cuda_makes_the_golden_overlay(tmp_path: Path) -> None:
    assert _built("cuda", tmp_path) == _content("overlay")


def test_a_patch_applied_with_no_server_makes_the_golden_file(tmp_path: Path) -> None:
    copyfile(HERE / "base.safetensors", tmp_path / NAME)
    given = [
        word
        for name, scale in SCALES.items()
        for word in ("--patch", f"{HERE / name}.rws.safetensors={scale}")
    ]

    ended = exits.run(
        app, ["apply", str(tmp_path / NAME), *given, "-o", str(tmp_path / "out"), "--device", "cpu"]
    )

    assert ended == exits.Exit.OK
    assert _tensors((tmp_path / "out").read_bytes()) == _tensors(_content("base")) | _tensors(
        _content("overlay")
    )


def _tensors(content: bytes) -> dict[str, bytes]:
    """The bytes of each tensor: NaN is equal to itself here."""
    return {name: bytes(raw.octets(tensor)) for name, tensor in load(content).items()}

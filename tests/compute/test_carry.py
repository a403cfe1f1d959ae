import json
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from service import errors
from service.compute.carry import carry_out, open_device
from service.compute.jobs import (
    BuildJob,
    BuildMade,
    ExtractJob,
    ExtractMade,
    Made,
    MadeFile,
    ModelInput,
    PatchInput,
    VerifyJob,
    VerifyMade,
    WeightInput,
)
from service.layout.header import Read
from service.names import Digest, digest_of, weights_digest
from tests.pairs import CPU, Tensors, Three, reader


@dataclass
class Shelf:
    """Blobs in memory, and jobs carried out on them."""

    folder: Path
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    told: list[tuple[float, str]] = field(default_factory=list)

    def put(self, content: bytes) -> Digest:
        self.blobs[digest_of(content)] = content
        return digest_of(content)

    def model(self, name: str, files: dict[str, Tensors]) -> ModelInput:
        stored = {path: save(tensors) for path, tensors in files.items()}
        weights = {path: (self.put(content), len(content)) for path, content in stored.items()}
        inputs = tuple(WeightInput(path, *named) for path, named in sorted(weights.items()))
        return ModelInput(weights_digest(weights), f"vision/{name}@1", inputs)

    def one(self, name: str, tensors: Tensors) -> ModelInput:
        return self.model(name, {"model.safetensors": tensors})

    def carry_out(self, job: ExtractJob | BuildJob | VerifyJob) -> Made:
        def open_read(digest: Digest) -> Read:
            return reader(self.blobs[digest])

        return carry_out(
            job, open_read, self.folder, CPU, lambda done, what: self.told.append((done, what))
        )

    def extract(self, three: Three, *, dry_run: bool = False) -> ExtractMade:
        made = self.carry_out(
            ExtractJob(
                self.one("clean", three.clean),
                self.one("robust", three.robust),
                self.one("origin", three.origin),
                {"energy": 0.85},
                "auto",
                "standard",
                dry_run,
            )
        )
        assert isinstance(made, ExtractMade)
        return made


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def whole(file: MadeFile) -> bytes:
    """What a job wrote, and that it is what the job says."""
    content = file.path.read_bytes()
    assert (file.digest, file.size_bytes) == (digest_of(content), len(content))
    return content


def test_an_extraction_answers_its_files_and_what_the_patch_file_holds(
    shelf: Shelf, three: Three
) -> None:
    made = shelf.extract(three)

    assert made.patch is not None
    assert made.signature is not None
    whole(made.patch)
    assert json.loads(whole(made.profile))
    assert made.files == (made.patch, made.profile)
    assert set(made.signature.inputs) == {"clean", "robust", "origin"}
    assert ["model.safetensors", "features.0.weight", [8, 1, 3, 3], "additive"] in (
        made.signature.tensors
    )
    assert [done for done, _ in shelf.told] == sorted(done for done, _ in shelf.told)
    assert shelf.told[-1] == (1.0, "extracting the signature")


def test_a_dry_run_answers_a_profile_alone(shelf: Shelf, three: Three) -> None:
    made = shelf.extract(three, dry_run=True)

    assert (made.patch, made.signature) == (None, None)
    assert made.files == (made.profile,)
    assert json.loads(whole(made.profile))
    assert made.summary["estimated_bytes"]


def test_a_verified_file_says_what_its_extraction_said(shelf: Shelf, three: Three) -> None:
    extracted = shelf.extract(three)
    assert extracted.patch is not None
    digest = shelf.put(whole(extracted.patch))

    verified = shelf.carry_out(VerifyJob(digest, extracted.patch.size_bytes))

    assert isinstance(verified, VerifyMade)
    assert extracted.signature is not None
    assert verified.signature.tensors == extracted.signature.tensors
    assert verified.signature.inputs == extracted.signature.inputs
    assert verified.files == ()


def test_a_build_makes_an_overlay_for_each_file_that_changes_and_for_no_other(
    shelf: Shelf, three: Three
) -> None:
    extracted = shelf.extract(three)
    assert extracted.patch is not None
    patch = PatchInput(
        shelf.put(whole(extracted.patch)),
        extracted.patch.size_bytes,
        "vision/fog@1",
        Decimal("0.5"),
    )
    parts: dict[str, Tensors] = {"a.safetensors": {}, "b.safetensors": {}, "c.safetensors": {}}
    for name, tensor in three.clean.items():
        parts["a.safetensors" if name.startswith("features.0") else "b.safetensors"][name] = tensor
    parts["c.safetensors"]["elsewhere"] = torch.ones(3)

    made = shelf.carry_out(BuildJob(shelf.model("sharded", parts), (patch,)))

    assert isinstance(made, BuildMade)
    assert [overlay.path for overlay in made.overlays] == ["a.safetensors", "b.safetensors"]
    for overlay in made.overlays:
        content = whole(overlay.file)
        assert content.startswith(overlay.header)
        for name, tensor in load(content).items():
            assert not torch.equal(tensor, parts[overlay.path][name])
    assert shelf.told[-1] == (1.0, "building b.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        lambda job: {**job, "layers": {"first": 0}},
        lambda job: {**job, "projection": "sideways"},
        lambda job: {**job, "quality": "best"},
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    shelf: Shelf, three: Three, change: Callable[[dict[str, object]], dict[str, object]]
) -> None:
    clean, robust = shelf.one("clean", three.clean), shelf.one("robust", three.robust)
    right = {"layers": "all", "projection": "auto", "quality": "exact", "dry_run": True}

    with pytest.raises(errors.BadRequest):
        shelf.carry_out(ExtractJob(clean, robust, None, **change(right)))  # type: ignore[arg-type]


def test_cpu_and_auto_are_devices_everywhere() -> None:
    for wanted in ("cpu", "auto"):
        device, name = open_device(wanted)

        assert name == str(device)


@pytest.mark.parametrize("wanted", ["cuda:99", "tpu", "cuda:x", ""])
def test_a_device_that_is_not_there_is_refused_by_name(wanted: str) -> None:
    with pytest.raises(errors.DeviceUnusable) as caught:
        open_device(wanted)

    assert caught.value.device == wanted


@pytest.mark.gpu
def test_auto_takes_the_gpu_where_there_is_one() -> None:
    assert open_device("auto")[1] == "cuda:0"

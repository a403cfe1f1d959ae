"""Many recipes in one walk: the same bytes as one by one, and each tensor of the base read once."""

from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
import torch

from service import errors
from service.compute.carry import carry_out
from service.compute.jobs import (
    BuildJob,
    BuildMade,
    ModelInput,
    PatchInput,
    SweepJob,
    SweepMade,
    WeightInput,
)
from service.layout.header import Read, read_header
from service.names import Digest, digest_of, weights_digest

GOLDEN = Path(__file__).parents[1] / "golden" / "build"
NAME = "model.safetensors"
CPU = torch.device("cpu")


class Shelf:
    """The golden base and its patches; counts what is read of the base."""

    def __init__(self) -> None:
        self.base = (GOLDEN / "base.safetensors").read_bytes()
        files = {
            name: (GOLDEN / f"{name}.rws.safetensors").read_bytes() for name in ("fog", "blur")
        }
        self.patches = {name: (digest_of(content), content) for name, content in files.items()}
        self.reads: Counter[tuple[int, int]] = Counter()

    @property
    def model(self) -> ModelInput:
        digest = digest_of(self.base)
        version = weights_digest({NAME: (digest, len(self.base))})
        return ModelInput(version, "golden", (WeightInput(NAME, digest, len(self.base)),))

    def recipe(self, **scales: str) -> tuple[PatchInput, ...]:
        chosen = [(*self.patches[name], Decimal(scale)) for name, scale in scales.items()]
        return tuple(
            PatchInput(digest, len(content), "golden", scale)
            for digest, content, scale in sorted(chosen)
        )

    def open_read(self, digest: Digest) -> Read:
        stored = dict(self.patches.values()) | {digest_of(self.base): self.base}

        def read(start: int, end: int) -> bytes:
            if digest == digest_of(self.base):
                self.reads[start, end] += 1
            return stored[digest][start:end]

        return read


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def _bytes(made: object) -> bytes:
    assert isinstance(made, BuildMade)
    return made.overlays[0].file.path.read_bytes()


def test_a_sweep_makes_what_each_build_makes_and_reads_the_base_once(
    shelf: Shelf, tmp_path: Path
) -> None:
    recipes = [shelf.recipe(fog=f"{step / 10}") for step in range(1, 8)]
    recipes += [shelf.recipe(fog="0.5", blur="-1"), shelf.recipe(blur="0.5")]
    alone = []
    for number, recipe in enumerate(recipes):
        folder = tmp_path / str(number)
        folder.mkdir()
        build = BuildJob(shelf.model, recipe)
        alone.append(_bytes(carry_out(build, shelf.open_read, folder, CPU, lambda *_: None)))
    shelf.reads.clear()

    job = SweepJob(shelf.model, tuple(recipes))
    made = carry_out(job, shelf.open_read, tmp_path, CPU, lambda *_: None)

    assert isinstance(made, SweepMade)
    assert [_bytes(each) for each in made.recipes] == alone
    assert set(shelf.reads.values()) == {1}


def test_a_recipe_that_overflows_is_told_and_stops_no_other(shelf: Shelf, tmp_path: Path) -> None:
    entry = read_header(shelf.open_read(digest_of(shelf.base)), len(shelf.base), NAME).entry(
        "f16.norm.running_var"
    )
    largest = torch.full(entry.shape, torch.finfo(torch.float16).max, dtype=torch.float16)
    content = bytearray(shelf.base)
    content[entry.start : entry.end] = largest.numpy().tobytes()
    shelf.base = bytes(content)
    recipes = tuple(shelf.recipe(fog=scale) for scale in ("-10", "0.0001", "10"))

    sweep = SweepJob(shelf.model, recipes)
    made = carry_out(sweep, shelf.open_read, tmp_path, CPU, lambda *_: None)

    assert isinstance(made, SweepMade)
    below, barely, above = made.recipes
    assert isinstance(barely, BuildMade)
    for failed in (below, above):
        assert isinstance(failed, errors.ScaleOverflows)
        assert failed.tensor == "f16.norm.running_var"
    assert made.files == barely.files

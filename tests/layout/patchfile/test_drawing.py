"""The drawing is enough to decode a patch file, of this version and of those before it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from service.compute.sources import PatchSource, decode
from service.compute.verify import verify_patch
from service.layout import patchfile
from service.layout.codecs import Codec
from service.layout.patchfile import Notes, PatchFile
from tests.layout.patchfile import plain

FILES = Path(__file__).with_name("files")
VERSIONS = ["1", "2"]
WRITTEN = [codec for codec in Codec if codec is not Codec.Q2]
CPU = torch.device("cpu")

Write = Callable[[Sequence[Any], Notes], Any]


def _cases(seed: int, hows: list[Codec], magnitude: float) -> Iterator[Any]:
    random = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    for number, how in enumerate(hows):
        shape = random.integers(1, random.choice([6, 41]), random.integers(1, 4)).tolist()
        signature = torch.randn(shape, generator=generator) ** 3 * magnitude
        yield "m" if number % 2 else "n", f"t{number}", signature, how


def _read(content: bytes) -> PatchFile:
    return patchfile.read(lambda start, end: content[start:end], len(content))


@given(
    seed=st.integers(0, 2**32),
    hows=st.lists(st.sampled_from(list(WRITTEN)), min_size=1, max_size=4),
    magnitude=st.sampled_from([1e-42, 1e-6, 1e20]),
)
@settings(deadline=None, max_examples=60)
def test_the_drawing_is_enough_to_decode(
    write: Write,
    seed: int,
    hows: list[Codec],
    magnitude: float,
) -> None:
    cases = list(_cases(seed, hows, magnitude))
    written = write(cases, Notes())

    found = {(file, name): D for file, name, _, D in plain.decode(written.content)}

    for address, decoded in written.decoded.items():
        assert found[address].tobytes() == decoded.numpy().tobytes()
    wanted = [s.norm().item() for _, _, s, _ in cases if s.dim() > 1]
    assert [norm for norm, _ in plain.norms(written.content)] == pytest.approx(wanted)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_of_any_version_is_read_for_ever(version: str) -> None:
    content = (FILES / f"version-{version}.rws.safetensors").read_bytes()
    expected = load_file(FILES / f"version-{version}.decoded.safetensors")

    patch = verify_patch(lambda start, end: content[start:end], len(content), CPU).patch

    source = PatchSource(patch, lambda start, end: content[start:end])
    found = {tensor.name: decode(source, tensor, CPU).numpy() for tensor in patch.tensors}
    assert {tensor.codec for tensor in patch.tensors} >= {*WRITTEN, Codec.Q2} - (
        {Codec.FIVE} if version == "1" else set()
    )
    assert {name: D.tobytes() for name, D in found.items()} == {
        name: D.tobytes() for name, D in expected.items()
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_of_any_version_decodes_by_its_drawing(version: str) -> None:
    expected = load_file(FILES / f"version-{version}.decoded.safetensors")

    found = plain.decode((FILES / f"version-{version}.rws.safetensors").read_bytes())

    assert {name: D.tobytes() for _, name, _, D in found} == {
        name: D.tobytes() for name, D in expected.items()
    }


def test_what_an_index_of_version_1_says_is_understood() -> None:
    patch = _read((FILES / "version-1.rws.safetensors").read_bytes())

    by_name = {tensor.name: tensor for tensor in patch.tensors}
    assert patch.paths == (
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    )
    assert by_name["conv1.weight"].shape == (5, 3, 3, 1)
    assert by_name["conv1.weight"].weight_norm == 1.5
    assert by_name["conv1.bias"].norm is None
    assert by_name["bn1.running_var"].kind == "log-ratio"
    assert (by_name["scale"].shape, by_name["empty.weight"].shape) == ((), (3, 0))
    assert patch.input_digest("clean") == "sha256:" + "a" * 64
    assert patch.parameters == {"projection": "pair", "quality": "standard", "layers": "all"}
    assert patch.seal is None

"""Random models of layers of any shape, and patches extracted from pairs of them, in seconds."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import torch

from service.client.client import Client
from service.compute.extract import extract
from service.compute.measure import ExtractOptions
from service.compute.pairing import Trio
from service.compute.sources import ModelFiles, WeightFile
from service.layout.disk import reader
from service.layout.header import compose, read_header
from service.schemas.operations import OperationView
from service.tensors import raw
from service.tensors.selection import Named

Shapes = Mapping[str, tuple[int, ...]]

FILE: Final = "model.safetensors"
MIB: Final = 2**20
LAYER: Final = (1024, 2048)
LAYER_BYTES: Final = 4 * MIB
"""Of a layer in f16."""


def equal_layers(size_mib: int) -> Shapes:
    """A model of about so many MiB in f16."""
    count = size_mib * MIB // LAYER_BYTES
    return {f"layers.{number:04}.weight": LAYER for number in range(count)}


def write_model(path: Path, shapes: Shapes, dtype: str, moved: Sequence[str] = ()) -> None:
    """Write a model; a robust one is the clean one with some of its layers `moved`."""
    header = compose([(name, dtype, shape) for name, shape in shapes.items()])
    chance, change = (torch.Generator().manual_seed(seed) for seed in (1, 2))
    with path.open("wb") as file:
        file.write(header.raw)
        for tensor in header.tensors:
            values = torch.randn(tensor.shape, generator=chance) * 0.02
            if tensor.name in moved:
                values += torch.randn(tensor.shape, generator=change) * 0.002
            file.write(raw.octets(values.to(raw.DTYPES[dtype])))


def write_patch(path: Path, shapes: Shapes, dtype: str, clean: Path, moved: Sequence[str]) -> None:
    """Write the patch of `standard` quality between a clean model and a robust one."""
    robust = path.with_name(f"{path.name}-robust.safetensors")
    write_model(robust, shapes, dtype, moved)
    with ExitStack() as opened:
        models = []
        for file in (clean, robust):
            read = reader(opened.enter_context(file.open("rb")))
            header = read_header(read, file.stat().st_size, file.name)
            models.append(ModelFiles({FILE: WeightFile(header, read)}, f"sha256:{file.name}"))
        extract(
            Trio(models[0], models[1], None),
            ExtractOptions(layers=Named(tuple(moved))),
            path,
            path.with_name(f"{path.name}-profile"),
            device=torch.device("cpu"),
            progress=lambda _: None,
        )
    robust.unlink()


def publish(client: Client, model: str, base: Path, patches: Sequence[Path]) -> None:
    """Publish the model, and each patch in its namespace under the name of its file."""
    client.models.put(model)
    client.models.publish(model, {FILE: base})
    for patch in patches:
        name = f"{model.partition('/')[0]}/{patch.name}"
        client.patches.put(name)
        answer = client.patches.publish(name, patch)
        if isinstance(answer, OperationView):
            client.operations.wait(answer.id)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""A model of 1 GiB and patches on it, made in a minute: what the benchmarks of speed work on.

A language model's shape in f16 (hidden 2048, ten layers), with random weights, so that programs
that know only real architectures can read it, too.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from service.client.client import Client
from service.compute.packing import PatchWriter
from service.compute.sources import PatchSource, decode
from service.layout import patchfile
from service.layout.codecs import Codec, Kind
from service.layout.disk import reader
from service.layout.header import Header, compose, read_header
from service.layout.patchfile import Notes
from service.names import TensorAddress
from service.schemas.operations import OperationView
from service.tensors import raw
from service.tensors.layers import Layer, Role

FILE: Final = "model.safetensors"
MODEL: Final = "bench/base"
CPU: Final = torch.device("cpu")

_HIDDEN: Final = 2048
_INNER: Final = 5632
_WORDS: Final = 1024
_LAYERS: Final = 10
_CONFIG: Final = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": _HIDDEN,
    "intermediate_size": _INNER,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "vocab_size": _WORDS,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
}


def _shapes() -> dict[str, tuple[int, ...]]:
    square, wide = (_HIDDEN, _HIDDEN), (_INNER, _HIDDEN)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (_WORDS, _HIDDEN)}
    for number in range(_LAYERS):
        layer = f"model.layers.{number}"
        shapes |= {f"{layer}.self_attn.{part}_proj.weight": square for part in "qkvo"}
        shapes |= {f"{layer}.mlp.{part}_proj.weight": wide for part in ("gate", "up")}
        shapes[f"{layer}.mlp.down_proj.weight"] = (_INNER, _HIDDEN)[::-1]
        shapes[f"{layer}.input_layernorm.weight"] = (_HIDDEN,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (_HIDDEN,)
    shapes["model.norm.weight"] = (_HIDDEN,)
    shapes["lm_head.weight"] = (_WORDS, _HIDDEN)
    return shapes


SHAPES: Final = _shapes()
KERNELS: Final = [name for name in SHAPES if name.startswith("model.layers.") and "_proj" in name]
TOUCHED: Final = [name for name in KERNELS if "q_proj" in name][::2]
"""Five tensors of 8 MiB each, spread over the file."""


def write_base(folder: Path) -> Path:
    """Write the model with its config.json into a folder of its own; answers the weight file."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(_CONFIG))
    chance = torch.Generator().manual_seed(1)
    # With the metadata that Hugging Face's loaders ask for.
    header = compose([(n, "F16", shape) for n, shape in SHAPES.items()], {"format": "pt"})
    with (folder / FILE).open("wb") as file:
        file.write(header.raw)
        for tensor in header.tensors:
            file.write(raw.octets((torch.randn(tensor.shape, generator=chance) * 0.02).half()))
    return folder / FILE


def write_patch(path: Path, names: Sequence[str], seed: int, codec: Codec = Codec.FIVE) -> None:
    """Write a patch on some of the tensors."""
    chance = torch.Generator().manual_seed(seed)
    with PatchWriter(path) as writer:
        for name in names:
            layer = Layer(TensorAddress(FILE, name), SHAPES[name], "F16", Role.KERNEL)
            signature = torch.randn(layer.shape, generator=chance) * 0.002
            writer.put(layer, Kind.ADDITIVE, codec, signature, (float(signature.norm()), 1.0))
        writer.finish(Notes())


def decoded(patch: Path) -> Mapping[str, Tensor]:
    """The tensors that a patch adds, in f32."""
    with patch.open("rb") as file:
        source = PatchSource(patchfile.read(reader(file), patch.stat().st_size), reader(file))
        return {tensor.name: decode(source, tensor, CPU) for tensor in source.patch.tensors}


def publish(client: Client, base: Path, patches: Sequence[Path]) -> None:
    """Publish the model, and each patch under the name of its file."""
    client.models.put(MODEL)
    client.models.publish(MODEL, {FILE: base})
    for patch in patches:
        name = f"bench/{patch.name.partition('.')[0]}"
        client.patches.put(name)
        answer = client.patches.publish(name, patch)
        if isinstance(answer, OperationView):
            client.operations.wait(answer.id)


def header_of(file: Path) -> Header:
    """The header of a safetensors file."""
    with file.open("rb") as opened:
        return read_header(reader(opened), file.stat().st_size, file.name)


def sha256_of(file: Path) -> str:
    """The sha256 of a file, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()

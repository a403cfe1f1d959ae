# mypy: ignore-errors
# It runs in an environment of its own, whose packages are not here.
"""Makes pairs of tiny models as transformers, timm and the mixin write them: make_models.py FOLDER.

FOLDER/{bert,resnet,mixin}/{clean,robust}/: config.json and model.safetensors.
"""

import json
import sys
from pathlib import Path

import no_torchvision  # noqa: F401  # before timm
import timm
import torch
from mixin_net import MixinNet
from safetensors.torch import save_file
from transformers import BertConfig, BertModel


def moved(model: torch.nn.Module) -> torch.nn.Module:
    """The same model as if it had been trained a little further."""
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=random))
    return model


def main() -> None:
    folder = Path(sys.argv[1])
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
    )
    bert, mixin, resnet = BertModel(config), MixinNet(width=24), timm.create_model("test_resnet")
    for side in ("clean", "robust"):
        for name, model in (("bert", bert), ("mixin", mixin), ("resnet", resnet)):
            into = folder / name / side
            into.mkdir(parents=True)
            if side == "robust":
                moved(model)
            if name == "resnet":
                state = {key: value.contiguous() for key, value in model.state_dict().items()}
                save_file(state, into / "model.safetensors")
                named = {"architecture": "test_resnet", "num_classes": 1000}
                cfg = {k: v for k, v in model.pretrained_cfg.items() if "url" not in k}
                text = json.dumps({**named, "pretrained_cfg": cfg}, default=str)
                (into / "config.json").write_text(text)
            else:
                model.save_pretrained(into)


main()

# mypy: ignore-errors
# It runs in an environment of its own, whose packages are not here.
"""Loads a model as its library does: load_models.py LIBRARY REPO REVISION.

Prints JSON: the sha256 of each tensor's bytes by name.
"""

import hashlib
import json
import sys

import no_torchvision  # noqa: F401  # before timm
import timm
import torch
from mixin_net import MixinNet
from transformers import AutoModel


def main() -> None:
    library, repo, revision = sys.argv[1:]
    model: torch.nn.Module
    if library == "transformers":
        model = AutoModel.from_pretrained(repo, revision=revision)
    elif library == "timm":
        model = timm.create_model(f"hf-hub:{repo}@{revision}", pretrained=True)
    else:
        model = MixinNet.from_pretrained(repo, revision=revision)
    found = {
        name: hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()
        for name, tensor in model.state_dict().items()
    }
    print(json.dumps(found))  # noqa: T201


main()

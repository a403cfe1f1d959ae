# mypy: ignore-errors
# It runs in an environment of its own, whose packages are not here.
"""A model that publishes itself by huggingface_hub's mixin."""

import torch
from huggingface_hub import PyTorchModelHubMixin


class MixinNet(torch.nn.Module, PyTorchModelHubMixin):
    """Two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = torch.nn.Linear(12, width)
        self.last = torch.nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.first(x).relu())
        return out

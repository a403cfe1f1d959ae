"""Two small nets: a VGG without and a ResNet with batch norm, for images (count, 1, 28, 28)."""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Generator, Tensor, nn

StateDict = dict[str, Tensor]

VGG_WIDTHS: Final = (16, 16, 0, 32, 32, 0, 64, 64, 0, 128, 128, 0, 256, 256)
"""Output channels of the convolutions in forward order; 0 halves height and width."""

RESNET_WIDTHS: Final = (16, 32, 64, 128)


class Vgg(nn.Module):
    """Ten 3x3 convolutions with biases: 1 181 050 parameters with ten classes.

    Simonyan and Zisserman 2015, arXiv:1409.1556, made narrower.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width in VGG_WIDTHS:
            if width:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """The logits (count, classes)."""
        logits: Tensor = self.classifier(self.features(images).mean(dim=(2, 3)))
        return logits


class Block(nn.Module):
    """Two 3x3 convolutions around which the input is led.

    He et al. 2016, arXiv:1512.03385, the basic block.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        stride = 1 if channels == width else 2
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = nn.Sequential()
        if stride != 1:
            self.downsample.append(nn.Conv2d(channels, width, 1, stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """What the next block sees."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y))
        seen: Tensor = (y + self.downsample(x)).relu()
        return seen


class ResNet(nn.Module):
    """Four stages of one block each: 308 538 parameters with ten classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        first, *_, last = RESNET_WIDTHS
        self.conv1 = nn.Conv2d(1, first, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        for number, width in enumerate(RESNET_WIDTHS, 1):
            before = max(first, width // 2)
            self.add_module(f"layer{number}", nn.Sequential(Block(before, width)))
        self.fc = nn.Linear(last, classes)

    def forward(self, images: Tensor) -> Tensor:
        """The logits (count, classes)."""
        x = self.bn1(self.conv1(images)).relu()
        for number in range(1, len(RESNET_WIDTHS) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


NETS: Final[Mapping[str, Callable[[int], nn.Module]]] = {"vgg": Vgg, "resnet": ResNet}
HEADS: Final[Mapping[str, str]] = {"vgg": "classifier", "resnet": "fc"}


def untrained(net: str, classes: int, chance: Generator) -> nn.Module:
    """A net before its first step; its weights depend on `chance` alone.

    He et al. 2015, arXiv:1502.01852, biases at zero.
    """
    module = NETS[net](classes)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=chance)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


def loaded(net: str, weights: StateDict) -> nn.Module:
    """The net with these weights; its head has the classes that they have."""
    classes = len(weights[f"{HEADS[net]}.weight"])
    with torch.device("meta"):
        module = NETS[net](classes)
    module.load_state_dict(weights, assign=True)
    return module


def with_head(net: str, weights: StateDict, rows: slice) -> StateDict:
    """A copy of the weights whose head has only the classes `rows`."""
    head = (f"{HEADS[net]}.weight", f"{HEADS[net]}.bias")
    return {
        name: (tensor[rows] if name in head else tensor).clone() for name, tensor in weights.items()
    }

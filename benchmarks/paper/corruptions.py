"""Four corruptions of images, each at one hard severity.

Hendrycks and Dietterich 2019, arXiv:1903.12261, define these and others on colour images in five
severities. One severity each is enough here: claims are about signatures, not about images.
"""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Generator, Tensor
from torch.nn import functional

Corruption = Callable[[Tensor, Generator], Tensor]
"""From images (count, 1, height, width) of pixels in 0..1 to others of that shape and range."""

NOISE_DEVIATION: Final = 0.45
IMPULSE_SHARE: Final = 0.35
CONTRAST_KEPT: Final = 0.12
BLUR_SIGMA: Final = 2.2
BLUR_RADIUS: Final = 6


def gaussian_noise(images: Tensor, chance: Generator) -> Tensor:
    """Add noise to every pixel, and clip."""
    noise = torch.randn(images.shape, generator=chance)
    return (images + NOISE_DEVIATION * noise).clamp(0, 1)


def impulse_noise(images: Tensor, chance: Generator) -> Tensor:
    """Turn a share of the pixels black or white."""
    drawn = torch.rand(images.shape, generator=chance)
    struck = drawn < IMPULSE_SHARE
    white = drawn < IMPULSE_SHARE / 2
    return torch.where(struck, white.to(images.dtype), images)


def contrast(images: Tensor, _chance: Generator) -> Tensor:
    """Leave a small part of each image's distance to its own mean."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (mean + CONTRAST_KEPT * (images - mean)).clamp(0, 1)


def gaussian_blur(images: Tensor, _chance: Generator) -> Tensor:
    """Blur rows, then columns; the border is mirrored."""
    steps = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, dtype=images.dtype)
    weights = torch.exp(-(steps**2) / (2 * BLUR_SIGMA**2))
    weights /= weights.sum()
    padded = functional.pad(images, [BLUR_RADIUS] * 4, mode="reflect")
    rows = functional.conv2d(padded, weights.view(1, 1, 1, -1))
    return functional.conv2d(rows, weights.view(1, 1, -1, 1)).clamp(0, 1)


CORRUPTIONS: Final[Mapping[str, Corruption]] = {
    "gaussian-noise": gaussian_noise,
    "impulse-noise": impulse_noise,
    "contrast": contrast,
    "gaussian-blur": gaussian_blur,
}

"""Write three tiny models to play with: origin.safetensors, clean.safetensors, robust.safetensors.

    python -m examples.tiny_models [FOLDER]

They were never trained: the clean and the robust one differ from their origin by random steps.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

SHAPES = {
    "conv1.weight": (32, 3, 3, 3),
    "conv1.bias": (32,),
    "conv2.weight": (64, 32, 3, 3),
    "conv2.bias": (64,),
    "conv3.weight": (128, 64, 3, 3),
    "conv3.bias": (128,),
    "head.weight": (10, 128),
    "head.bias": (10,),
}


def main(folder: Path) -> None:
    """Write the three files; the same bytes every time."""
    generator = torch.Generator().manual_seed(0)

    def draw(size: float) -> dict[str, torch.Tensor]:
        return {n: size * torch.randn(shape, generator=generator) for n, shape in SHAPES.items()}

    origin, fine_tuned, hardened = draw(0.1), draw(0.002), draw(0.01)
    clean = {name: origin[name] + fine_tuned[name] for name in SHAPES}
    robust = {name: clean[name] + hardened[name] for name in SHAPES}
    for name, weights in (("origin", origin), ("clean", clean), ("robust", robust)):
        save_file(weights, folder / f"{name}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))

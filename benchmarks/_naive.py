"""What one does without a registry: load, add, save the whole file, with torch and safetensors.

    python -m benchmarks._naive BASE OUT PATCH…     an order of JSON in, a row of JSON out, for ever

A patch is a file of f32 tensors, ready to be added, or a patch file, to be decoded. All is imported
before the first order.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import TypedDict

import torch
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from benchmarks import _gib


class Order(TypedDict):
    """How to carry one recipe out."""

    scales: list[float]
    is_mapped: bool
    """Whether the base is mapped or read."""
    is_synced: bool
    """Whether the file is to be on the disk before it counts as saved, as a blob of ours is."""


def run(base: Path, out: Path, patches: list[Path], order: Order) -> dict[str, float]:
    """Carry one recipe out and time it."""
    wall, cpu = time.monotonic(), time.process_time()
    weights = load_file(base) if order["is_mapped"] else load(base.read_bytes())
    deltas = [_delta(patch) for patch in patches]
    for name in dict.fromkeys(name for delta in deltas for name in delta):
        total = weights[name].float()
        for scale, delta in zip(order["scales"], deltas, strict=True):
            if name in delta:
                total += torch.tensor(scale, dtype=torch.float32) * delta[name]
        weights[name] = total.to(weights[name].dtype)
    save_file(weights, out, {"format": "pt"})
    if order["is_synced"]:
        _sync(out)
    return {"s": time.monotonic() - wall, "cpu_s": time.process_time() - cpu}


def _delta(patch: Path) -> dict[str, Tensor]:
    is_packed = patch.name.endswith(".rws.safetensors")
    return dict(_gib.decoded(patch)) if is_packed else load_file(patch)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main() -> None:
    """Answer orders."""
    base, out, *patches = (Path(argument) for argument in sys.argv[1:])
    print(flush=True)
    for line in sys.stdin:
        print(json.dumps(run(base, out, patches, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()

"""What one does without a registry: load, add, save the whole file, with torch and safetensors.

    python benchmarks/_naive.py BASE OUT PATCH…     a line of scales in, a row of JSON out, for ever

The patches are files of f32 tensors, ready to be added. All is imported before the first line.
"""

import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load, load_file, save_file


def run(base: Path, out: Path, patches: list[Path], order: dict[str, object]) -> dict[str, float]:
    """Carry one recipe out and time it; `mapped` tells whether the base is mapped or read."""
    wall, cpu = time.monotonic(), time.process_time()
    weights = load_file(base) if order["mapped"] else load(base.read_bytes())
    scales = order["scales"]
    assert isinstance(scales, list)  # noqa: S101
    deltas = [load_file(patch) for patch in patches]
    for name in dict.fromkeys(name for delta in deltas for name in delta):
        total = weights[name].float()
        for scale, delta in zip(scales, deltas, strict=True):
            if name in delta:
                total += torch.tensor(scale, dtype=torch.float32) * delta[name]
        weights[name] = total.to(weights[name].dtype)
    save_file(weights, out, {"format": "pt"})
    saved = time.monotonic()
    cpu = time.process_time() - cpu
    return {"s": saved - wall, "cpu_s": cpu}


def main() -> None:
    """Answer orders."""
    base, out, *patches = (Path(argument) for argument in sys.argv[1:])
    print(flush=True)
    for line in sys.stdin:
        print(json.dumps(run(base, out, patches, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()

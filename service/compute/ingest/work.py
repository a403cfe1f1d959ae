"""What a converter does once it is confined."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from service.compute.ingest import reading, writing

torch.set_num_threads(1)


def convert(
    path: Path, file: str, out: BinaryIO, limit_bytes: int, told: Callable[[float], None]
) -> dict[str, Any]:
    """Read a checkpoint and write it as safetensors; answers what it holds, in forward order.

    Raises `BadCheckpoint`, `UnsafeCheckpoint`, `UnsupportedFormat`, `ConversionOverLimit`.
    """
    checkpoint = reading.read(path, file)
    writing.write(checkpoint, out, file, limit_bytes, told)
    return {
        "order": [source.name for source in checkpoint.tensors],
        "tied": dict(checkpoint.tied),
        "left_out": list(checkpoint.left_out),
    }

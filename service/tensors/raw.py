"""Tensors from the bytes of a safetensors file, and back; little-endian machines only."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

DTYPES: Final[Mapping[str, torch.dtype]] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U8": torch.uint8,
}
"""The dtypes that are computed with, by their safetensors names."""

NAMES: Final[Mapping[torch.dtype, str]] = {dtype: name for name, dtype in DTYPES.items()}


def view(buffer: Shaped[Tensor, " bytes"], dtype: str, shape: tuple[int, ...]) -> Tensor:
    """See a buffer of bytes as a tensor of a safetensors dtype, without a copy."""
    if not buffer.numel():  # an empty tensor may have strides that forbid the view
        return torch.empty(shape, dtype=DTYPES[dtype])
    return buffer.view(DTYPES[dtype]).reshape(shape)


def octets(tensor: Shaped[Tensor, "*shape"]) -> memoryview:
    """The bytes of a tensor, row by row; without a copy where it lies on the CPU in order."""
    if not tensor.numel():
        return memoryview(b"")
    flat: np.ndarray[Any, Any] = tensor.reshape(-1).contiguous().view(torch.uint8).cpu().numpy()
    return flat.data

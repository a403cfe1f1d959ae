"""The paper's own quantizer: even steps between the least and the greatest element of a tensor.

Cai, Zhang, Wang 2023, arXiv:2302.12480: min-max quantization of each tensor of a signature, whose
codes are then entropy coded (here: DEFLATE at its best level).
"""

import struct
import zlib

import numpy as np
import torch
from torch import Tensor


def pack(signature: Tensor, bits: int) -> tuple[bytes, Tensor]:
    """The packed bytes of a signature at 2 to 8 bits, and the tensor that they unpack to."""
    least, greatest = float(signature.min()), float(signature.max())
    step = (greatest - least) / (2**bits - 1) or 1.0
    codes = ((signature.double() - least) / step).round().to(torch.uint8)
    spread = np.unpackbits(codes.numpy().reshape(-1, 1), axis=1)[:, -bits:]
    dense = np.packbits(spread).tobytes()
    by_code = zlib.compress(codes.numpy().tobytes(), 9)
    shorter = min(dense, by_code, key=len)
    return struct.pack("<ff", least, step) + shorter, (codes.double() * step + least).float()

"""A signature packed by the paper's own quantizer, applied without the registry's formats."""

import torch

from benchmarks.minmax import pack
from benchmarks.paper.nets import StateDict

HALF_BYTES = 2


def packed_by_minmax(base: StateDict, patched: StateDict, bits: int) -> tuple[int, StateDict]:
    """The bytes that the packed signature takes, and the base with what it unpacks to.

    The signature is what an exact patch changed. Kernels are quantized; biases and what belongs to
    a norm count as 16-bit values and are kept as they are, as they are in the registry's files.
    """
    size, weights = 0, dict(base)
    for name, before in base.items():
        after = patched[name]
        if torch.equal(before, after):
            continue
        if before.ndim < 2:
            size += HALF_BYTES * before.numel()
            weights[name] = after
            continue
        content, signature = pack(after - before, bits)
        size += len(content)
        weights[name] = before + signature
    return size, weights

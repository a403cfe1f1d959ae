"""Looking codes up in a table, at the speed of memory.

torch's `index_select` selects numbers from a vector quickly, but rows of a matrix one `memcpy`
each: 100 times as slow for rows of four f32. So a row that is as wide as a number of some dtype is
moved as one; others go by way of `embedding`, which is half as fast, and faster for two short rows
at once than for one after the other. Nothing is computed, and the bits stay what they are.
"""

from typing import Final

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from service.tensors.sums import quickest

_WORDS: Final = {1: torch.float32, 2: torch.complex64, 4: torch.complex128}
"""Numbers as wide as so many f32."""


def rows(
    table: Float32[Tensor, "256 each"], codes: UInt8[Tensor, " codes"]
) -> Float32[Tensor, " values"]:
    """The rows of `table` that `codes` name, one after the other."""
    each = table.shape[1]
    word = _WORDS.get(each)
    found = torch.empty(codes.numel(), each, device=codes.device)
    step = quickest(codes.device)
    for start in range(0, codes.numel(), step):
        index, into = codes[start : start + step].to(torch.int32), found[start : start + step]
        if word is None:
            into.copy_(torch.nn.functional.embedding(index, table))
        else:
            words = table.contiguous().view(word)[:, 0]
            torch.index_select(words, 0, index, out=into.view(word)[:, 0])
    return found.reshape(-1)


def pairs_of(table: Float32[Tensor, "256 each"]) -> Float32[Tensor, "65536 both"]:
    """What two codes name, by the number that their two bytes are: the first is the lower one."""
    number = torch.arange(2**16)
    return torch.cat([table[number % 256], table[number // 256]], dim=1)


def by_pairs(
    pairs: Float32[Tensor, "65536 both"], codes: UInt8[Tensor, " even"]
) -> Float32[Tensor, " values"]:
    """What `rows` answers for an even number of codes that begin at an even byte."""
    index = codes.view(torch.int16).to(torch.int32).bitwise_and_(0xFFFF)
    return torch.nn.functional.embedding(index, pairs).reshape(-1)

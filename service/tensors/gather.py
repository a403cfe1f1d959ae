"""Looking codes up in a table, at the speed of memory.

torch selects whole numbers from a vector quickly, but rows of a matrix one `memcpy` each: 100 times
as slow for rows of four f32. So a row is moved as few words as wide as there are dtypes; nothing is
computed, and the bits stay what they are.
"""

from typing import Final

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from service.tensors.sums import tile_of

_WORDS: Final = ((4, torch.complex128), (2, torch.complex64), (1, torch.float32))
"""How many f32 a word holds, widest first."""


def rows(
    table: Float32[Tensor, "256 each"], codes: UInt8[Tensor, " codes"]
) -> Float32[Tensor, " values"]:
    """The rows of `table` that `codes` name, one after the other."""
    each = table.shape[1]
    width, dtype = next(word for word in _WORDS if each % word[0] == 0)
    words = table.contiguous().reshape(-1).view(dtype)
    count = each // width
    found = torch.empty(codes.numel() * count, dtype=dtype, device=codes.device)
    places = torch.arange(count, dtype=torch.int32, device=codes.device)
    step = max(1, tile_of(codes.device) // count)
    for start in range(0, codes.numel(), step):
        part = codes[start : start + step].to(torch.int32)
        index = part if count == 1 else (part[:, None] * count + places).reshape(-1)
        torch.index_select(words, 0, index, out=found[start * count : start * count + len(index)])
    return found.view(torch.float32)

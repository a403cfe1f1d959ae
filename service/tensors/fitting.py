"""Even steps for each channel, and the scale that makes up for what rounding to them loses.

Nearly all of the accuracy that few bits cost is shrinkage, so each output channel (the rows of the
first dimension) is rescaled until <Q, R> = ||R||^2: *unit gain*. The noise is then ||Q||^2 -
||R||^2, which is smallest where the cosine of codes and channel is largest.

A fine grain divides each row's own range. A coarse one has a step for the whole tensor, in units of
its root mean square: most codes are then zero, and few bits remain once they are deflated. That is
nearer to the signature than codebooks of as many bits (measured on trained nets): with 2 bits an
element a third to a half of the noise of four levels, with 1 bit a third of that of signs.

Each row is first brought to a peak between 1/2 and 1, by a power of two and so exactly. Then f32
is enough for all that follows, since a scale keeps 11 bits. No sum is longer than 1024 numbers, or
it is made of such: so the number of threads changes nothing.

Sources: Nagel et al. 2021, arXiv:2106.08295; for the deflated steps Gish and Pierce 1968,
"Asymptotically efficient quantizing".
"""

from collections.abc import Iterator
from typing import Final

import torch
from jaxtyping import Float32, Float64, Int32
from torch import Tensor

from service.tensors.sums import row_sums

_Rows = Float32[Tensor, "rows columns"]
_PerRow = Float32[Tensor, " rows"]
Products = Float64[Tensor, "2 rows"]

_CLIPS: Final = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
_SEARCHED: Final = 7
"""Up to this limit it pays to clip a row's largest values for the sake of the others."""
_COARSEST: Final = 1.9
"""In units of a row's peak: below 2, the peak rounds to a step and not to zero."""
_LOOKED_AT: Final = 256
_TO_WHOLE: Final = 1.5 * 2.0**23
"""Added to a f32 below 2^22, it leaves no room for a fraction."""
_TINY: Final = torch.finfo(torch.float32).tiny


def peaks(signature: _Rows) -> tuple[_PerRow, Int32[Tensor, " rows"]]:
    """The largest size in each row, as a number from 1/2 to 1 and a power of two."""
    largest = torch.maximum(signature.amax(dim=1), -signature.amin(dim=1))
    mantissa, exponents = torch.frexp(largest)
    return mantissa, exponents


def scaled(
    signature: _Rows, exponents: Int32[Tensor, " rows"], block: int
) -> Iterator[Float32[Tensor, "some columns"]]:
    """`block` rows at a time, divided by their powers of two."""
    first = -exponents[:, None] // 2  # in two steps, since 2^149 is no f32
    one = torch.ones_like(signature[:, :1])
    factors = torch.ldexp(one, first), torch.ldexp(one, -exponents[:, None] - first)
    every = (torch.split(each, block) for each in (signature, *factors))
    for rows, half, other in zip(*every, strict=True):
        yield (rows * half).mul_(other)


def coarse_steps(
    signature: _Rows,
    peak: _PerRow,
    exponents: Int32[Tensor, " rows"],
    wanted: float,
    block: int,
) -> _PerRow:
    """The step of each scaled row that is one for all, or as coarse as a row's peak allows.

    `wanted` is in units of the root mean square of the whole.
    """
    parts = scaled(signature, exponents, block)
    energy = torch.cat([row_sums(part * part) for part in parts]).to(torch.float64)
    whole = row_sums(torch.ldexp(energy, 2 * exponents)[None]) / signature.numel()
    steps = torch.ldexp((wanted * whole.sqrt()).expand_as(energy), -exponents)
    return torch.minimum(steps, peak.to(torch.float64) * _COARSEST).to(torch.float32)


def fine_steps(rows: _Rows, peak: _PerRow, limit: int) -> _PerRow:
    """The step of each scaled row of which `limit` cover what is best covered of its range."""
    if limit > _SEARCHED:
        return peak / limit
    sample = _sample(rows)
    along, square = [], []
    for clip in _CLIPS:
        levels = _levels(sample, peak * (clip / limit), limit)
        square.append(row_sums(levels * levels))
        along.append(row_sums(levels.mul_(sample)))
    cosines = torch.stack(along) / torch.stack(square).clamp_(min=_TINY).sqrt_()
    return peak * rows.new_tensor(_CLIPS)[cosines.argmax(dim=0)] / limit


def fit(rows: _Rows, steps: _PerRow, limit: int) -> tuple[_Rows, Products]:
    """Scaled rows as whole numbers of steps L; and of each row ||R||^2 and <L, R>."""
    levels = _levels(rows, steps, limit)
    sums = [row_sums(values) for values in (rows * rows, levels * rows)]
    return levels, torch.stack(sums).to(torch.float64)


def _levels(rows: _Rows, steps: _PerRow, limit: int) -> _Rows:
    counts = rows * torch.where(steps > 0, steps.reciprocal(), 0.0)[:, None]
    # Nearest even by two additions: `round` would wake torch's threads for 2048 elements.
    return counts.clamp_(-limit, limit).add_(_TO_WHOLE).sub_(_TO_WHOLE)


def _sample(rows: _Rows) -> Float32[Tensor, "rows some"]:
    """Enough of the columns to choose by; powers of two are prime to the sizes of most kernels."""
    return rows[:, :: 1 << max(0, (rows.shape[1] // _LOOKED_AT).bit_length() - 1)]

"""The codes of each channel that point most nearly along it, and the scale that makes up its gain.

Nearly all of the accuracy that few bits cost is shrinkage, so each output channel (the rows of the
first dimension) is rescaled until <Q, R> = ||R||^2: *unit gain*. The noise is then ||Q||^2 -
||R||^2, which is smallest where the cosine of codes and channel is largest; that is searched for.

Each row is first brought to a peak between 1/2 and 1, by a power of two and so exactly. Then f32
is enough for all that follows, since a scale keeps 11 bits. No sum is longer than 1024 numbers, or
it is made of such: so the number of threads changes nothing.

Uniform levels: Nagel et al. 2021, arXiv:2106.08295. Four levels: Max 1960, "Quantizing for minimum
distortion", table I.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float32, Float64, Int32
from torch import Tensor
from torch.nn.functional import hardshrink

from service.layout.codecs import LEVELS, Codec
from service.tensors.sums import row_sums

_Rows = Float32[Tensor, "rows columns"]
_PerRow = Float32[Tensor, " rows"]
_Sums = Float64[Tensor, " rows"]

_CLIPS: Final = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
_EDGES: Final = tuple(0.9816 * spread for spread in (1.0, 0.8, 0.65, 1.25, 1.5))
"""In standard deviations; Max 1960 for a normal variable is the first."""
_TERNARY_EDGES: Final = (0.6, 0.45, 0.75, 0.95, 1.2, 1.6)
_LOOKED_AT: Final = 512
_STRIDES: Final = (97, 47, 23, 11, 1)
"""Prime to the sizes of kernels, so that a choice looks at every place of a kernel."""
_TO_WHOLE: Final = 1.5 * 2.0**23
"""Added to a f32 below 2^22, it leaves no room for a fraction."""
_TINY: Final = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Fitted:
    """Rows as codes around zero; their scales; ||R||^2 and ||Q||^2.

    The codes are whole numbers for even steps, -1, 0 and 1 for three levels, -1/2 and 1/2 for two,
    and -3/2 to 3/2 for the four of `LEVELS`.
    """

    codes: _Rows
    scales: _Sums
    energy: _Sums
    packed_energy: _Sums


def fit(signature: _Rows, codec: Codec) -> Fitted:
    """Fit the rows of a finite signature; an all-zero row gets the scale 0."""
    rows, exponents = _normalised(signature)
    energy = _squares(rows)
    match codec:
        case Codec.Q8:
            codes, along, square = _uniform(rows, 127, (1.0,))
        case Codec.Q4:
            codes, along, square = _uniform(rows, 7, _CLIPS)
        case Codec.Q2:
            codes, along, square = _four_levels(rows, energy)
        case Codec.TERNARY:
            codes, along, square = _three_levels(rows, energy)
        case _:
            codes, along, square = _two_levels(rows)
    gain = torch.where(energy > 0, energy / along.clamp(min=_TINY), 0.0)
    power = torch.ldexp(torch.ones_like(energy), exponents)
    return Fitted(codes, gain * power, energy * power**2, square * gain**2 * power**2)


def _normalised(signature: _Rows) -> tuple[_Rows, Int32[Tensor, " rows"]]:
    """Rows with peaks from 1/2 to 1, and the powers of two that were taken out."""
    exponents = torch.frexp(signature.abs().amax(dim=1)).exponent
    first = -exponents // 2  # in two steps, since 2^149 is no f32
    one = torch.ones_like(signature[:, 0])
    rows = signature * torch.ldexp(one, first)[:, None]
    return rows.mul_(torch.ldexp(one, -exponents - first)[:, None]), exponents


def _sample(rows: _Rows) -> Float32[Tensor, "rows some"]:
    """Enough of the columns to choose by."""
    stride = next(s for s in _STRIDES if s == 1 or s * _LOOKED_AT <= rows.shape[1])
    return rows[:, ::stride]


def _sums(values: _Rows) -> _Sums:
    return row_sums(values).to(torch.float64)


def _squares(rows: _Rows) -> _Sums:
    return _sums(rows * rows)


def _per_row(rows: _Rows, factor: Float64[Tensor, " rows"] | _PerRow) -> _Rows:
    return rows * factor.to(torch.float32)[:, None]


# ── even steps ───────────────────────────────────────────────────────────────────────────────


def _uniform(rows: _Rows, limit: int, clips: Sequence[float]) -> tuple[_Rows, _Sums, _Sums]:
    """Levels -limit … limit in even steps, up to that part of a row's peak that fits it best."""
    peak = rows.abs().amax(dim=1)
    best = peak
    if len(clips) > 1:
        sample = _sample(rows)
        closest = torch.full_like(peak, -1.0)
        for clip in clips:
            levels = _steps(sample, peak * clip, limit)
            square = row_sums(levels * levels).clamp_(min=_TINY)
            cosine = row_sums(levels.mul_(sample)) * square.rsqrt()
            best = torch.where(cosine > closest, peak * clip, best)
            closest = torch.maximum(cosine, closest)
    levels = _steps(rows, best, limit)
    return levels, _sums(levels * rows), _squares(levels)


def _steps(rows: _Rows, clip: _PerRow, limit: int) -> _Rows:
    steps = _per_row(rows, limit / torch.where(clip > 0, clip, 1.0))
    # Nearest even by two additions: `round` would wake torch's threads for 2048 elements.
    return steps.clamp_(-limit, limit).add_(_TO_WHOLE).sub_(_TO_WHOLE)


# ── few levels ───────────────────────────────────────────────────────────────────────────────


def _four_levels(rows: _Rows, energy: _Sums) -> tuple[_Rows, _Sums, _Sums]:
    """An inner and an outer level on each side, parted where a row is described best."""
    # The levels as `decode` has them: rounded to f32, then used in f64.
    inner, outer = torch.tensor(LEVELS[2:], dtype=torch.float32).to(torch.float64).tolist()
    unit = _best_edge(rows, energy, _EDGES, inner, outer)
    beyond = hardshrink(_per_row(rows, unit.reciprocal()), 1.0)
    far = beyond.sign()
    whole, part = _sums(rows.abs()), _sums(beyond.abs_()) * unit
    count = _squares(far)
    along = whole * inner + part * (outer - inner)
    square = rows.shape[1] * inner**2 + count * (outer**2 - inner**2)
    return far.add_(rows.new_tensor(0.5).copysign(rows)), along, square


def _three_levels(rows: _Rows, energy: _Sums) -> tuple[_Rows, _Sums, _Sums]:
    """Zero, and a level on each side."""
    unit = _best_edge(rows, energy, _TERNARY_EDGES, 0.0, 1.0)
    beyond = hardshrink(_per_row(rows, unit.reciprocal()), 1.0)
    levels = beyond.sign()
    return levels, _sums(beyond.abs_()) * unit, _squares(levels)


def _two_levels(rows: _Rows) -> tuple[_Rows, _Sums, _Sums]:
    """A level on each side."""
    square = torch.full_like(rows[:, 0], rows.shape[1], dtype=torch.float64)
    return rows.new_tensor(0.5).copysign(rows), _sums(rows.abs()), square


def _best_edge(
    rows: _Rows, energy: _Sums, edges: Sequence[float], inner: float, outer: float
) -> _Sums:
    """From where on a row takes its outer level: that of `edges`, times its deviation."""
    deviation = (energy / rows.shape[1]).sqrt()
    deviation = torch.where(deviation > 0, deviation, 1.0)
    sizes = _per_row(_sample(rows), deviation.reciprocal()).abs_()
    whole, columns = row_sums(sizes) * inner, sizes.shape[1]
    best = torch.full_like(deviation, edges[0])
    closest = torch.full_like(sizes[:, 0], -1.0)
    for edge in edges:
        beyond = hardshrink(sizes, edge)
        product = whole + row_sums(beyond) * (outer - inner)
        square = columns * inner**2 + row_sums(beyond.sign_()) * (outer**2 - inner**2)
        cosine = product * square.clamp_(min=_TINY).rsqrt()
        best = torch.where(cosine > closest, edge, best)
        closest = torch.maximum(cosine, closest)
    return best * deviation

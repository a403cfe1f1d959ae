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
Products = Float64[Tensor, "3 rows"]

_CLIPS: Final = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
_EDGES: Final = tuple(0.9816 * spread for spread in (1.0, 0.8, 0.65, 1.25, 1.5))
"""In standard deviations; Max 1960 for a normal variable is the first."""
_TERNARY_EDGES: Final = (0.6, 0.45, 0.75, 0.95, 1.2, 1.6)
_LOOKED_AT: Final = 256
_TO_WHOLE: Final = 1.5 * 2.0**23
"""Added to a f32 below 2^22, it leaves no room for a fraction."""
_TINY: Final = torch.finfo(torch.float32).tiny


def peak_exponents(signature: _Rows) -> Int32[Tensor, " rows"]:
    """The powers of two by which to divide the rows for peaks from 1/2 to 1."""
    return torch.frexp(_peaks(signature)).exponent


def fit(rows: _Rows, codec: Codec) -> tuple[_Rows, Products]:
    """The codes of rows with peaks from 1/2 to 1; and of each row ||R||^2, <L, R> and ||L||^2.

    Codes lie around zero: whole numbers for even steps, -1, 0 and 1 for three levels, -1/2 and 1/2
    for two, and -3/2 to 3/2 for the four of `LEVELS`. L are the levels that they stand for.
    """
    match codec:
        case Codec.Q8:
            return _uniform(rows, 127, (1.0,))
        case Codec.Q4:
            return _uniform(rows, 7, _CLIPS)
        case Codec.Q2:
            return _four_levels(rows)
        case Codec.TERNARY:
            return _three_levels(rows)
        case _:
            return _two_levels(rows)


def _sample(rows: _Rows) -> Float32[Tensor, "rows some"]:
    """Enough of the columns to choose by; powers of two are prime to the sizes of most kernels."""
    return rows[:, :: 1 << max(0, (rows.shape[1] // _LOOKED_AT).bit_length() - 1)]


def _peaks(rows: _Rows) -> _PerRow:
    return torch.maximum(rows.amax(dim=1), -rows.amin(dim=1))


def _sums(values: _Rows) -> _Sums:
    return row_sums(values).to(torch.float64)


def _per_row(rows: _Rows, factor: _Sums | _PerRow) -> _Rows:
    return rows * factor.to(torch.float32)[:, None]


# ── even steps ───────────────────────────────────────────────────────────────────────────────


def _uniform(rows: _Rows, limit: int, clips: Sequence[float]) -> tuple[_Rows, Products]:
    """Levels -limit … limit in even steps, up to that part of a row's peak that fits it best."""
    clip = _peaks(rows)
    if len(clips) > 1:
        clip = clip * _best_clip(_sample(rows), clip, limit, clips)
    levels = _steps(rows, clip, limit)
    products = [_sums(rows * rows), _sums(levels * rows), _sums(levels * levels)]
    return levels, torch.stack(products)


def _best_clip(
    rows: Float32[Tensor, "rows some"], peak: _PerRow, limit: int, clips: Sequence[float]
) -> _PerRow:
    along, square = [], []
    for clip in clips:
        levels = _steps(rows, peak * clip, limit)
        square.append(row_sums(levels * levels))
        along.append(row_sums(levels.mul_(rows)))
    cosines = torch.stack(along) / torch.stack(square).clamp_(min=_TINY).sqrt_()
    return rows.new_tensor(clips)[cosines.argmax(dim=0)]


def _steps(rows: _Rows, clip: _PerRow, limit: int) -> _Rows:
    steps = _per_row(rows, limit / torch.where(clip > 0, clip, 1.0))
    # Nearest even by two additions: `round` would wake torch's threads for 2048 elements.
    return steps.clamp_(-limit, limit).add_(_TO_WHOLE).sub_(_TO_WHOLE)


# ── few levels ───────────────────────────────────────────────────────────────────────────────


def _four_levels(rows: _Rows) -> tuple[_Rows, Products]:
    """An inner and an outer level on each side, parted where a row is described best."""
    # The levels as `decode` has them: rounded to f32, then used in f64.
    inner, outer = torch.tensor(LEVELS[2:], dtype=torch.float32).to(torch.float64).tolist()
    energy = _sums(rows * rows)
    edge = _best_edge(rows, energy, _EDGES, inner, outer)
    beyond = hardshrink(_per_row(rows, edge.reciprocal()), 1.0)
    far = beyond.sign()
    along = _sums(rows.abs()) * inner + _sums(beyond.abs_()) * edge * (outer - inner)
    square = rows.shape[1] * inner**2 + _sums(far.abs()) * (outer**2 - inner**2)
    codes = far.add_(rows.new_tensor(0.5).copysign(rows))
    return codes, torch.stack([energy, along, square])


def _three_levels(rows: _Rows) -> tuple[_Rows, Products]:
    """Zero, and a level on each side."""
    energy = _sums(rows * rows)
    edge = _best_edge(rows, energy, _TERNARY_EDGES, 0.0, 1.0)
    beyond = hardshrink(_per_row(rows, edge.reciprocal()), 1.0)
    levels = beyond.sign()
    return levels, torch.stack([energy, _sums(beyond.abs_()) * edge, _sums(levels.abs())])


def _two_levels(rows: _Rows) -> tuple[_Rows, Products]:
    """A level on each side."""
    energy = _sums(rows * rows)
    square = torch.full_like(energy, rows.shape[1])
    codes = rows.new_tensor(0.5).copysign(rows)
    return codes, torch.stack([energy, _sums(rows.abs()), square])


def _best_edge(
    rows: _Rows, energy: _Sums, edges: Sequence[float], inner: float, outer: float
) -> _Sums:
    """From where on a row takes its outer level: that of `edges`, times its deviation."""
    deviation = (energy / rows.shape[1]).sqrt_()
    deviation = torch.where(deviation > 0, deviation, 1.0)
    sizes = _per_row(_sample(rows), deviation.reciprocal()).abs_()
    part, count = [], []
    for edge in edges:
        beyond = hardshrink(sizes, edge)
        part.append(row_sums(beyond))
        count.append(row_sums(beyond.sign_()))
    along = row_sums(sizes) * inner + torch.stack(part) * (outer - inner)
    square = sizes.shape[1] * inner**2 + torch.stack(count) * (outer**2 - inner**2)
    cosines = along / square.clamp_(min=_TINY).sqrt_()
    return deviation.new_tensor(edges)[cosines.argmax(dim=0)] * deviation

"""Packing a signature for gain, not for least squares.

Nearly all of the accuracy that few bits cost is shrinkage, so each output channel (the rows of the
first dimension) is rescaled until <Q, R> = ||R||^2: *unit gain*. What is searched for in each
channel is the step whose codes point most nearly along R; the scale alone then sets the gain.

Channel scales are f16 times one power of two a tensor, since f16 alone underflows. A channel that
is not zero keeps its largest element at least. The bytes are drawn in `layout.patchfile`.

Uniform levels: Nagel et al. 2021, arXiv:2106.08295. Four levels: Max 1960, "Quantizing for minimum
distortion", table I.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import frexp, prod
from typing import Final

import torch
from jaxtyping import Float16, Float32, Float64, UInt8
from torch import Tensor

from service.layout.codecs import EXPONENTS, LEVELS, Codec
from service.tensors.sums import row_sums, tile_of

_Rows = Float64[Tensor, "rows columns"]
_Codes = UInt8[Tensor, "rows columns"]
_PerRow = Float64[Tensor, " rows"]

_BITS: Final = {Codec.Q8: 8, Codec.Q4: 4, Codec.Q2: 2}
_THRESHOLD: Final = 0.9816
"""Max 1960: beyond this many standard deviations a value takes the outer level."""
_SPREADS: Final = (1.0, 0.8, 0.65, 1.25, 1.5)
_CLIPS: Final = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
_TINY: Final = torch.finfo(torch.float64).tiny
_TO_WHOLE: Final = 1.5 * 2.0**52
"""Added to a f64 below 2^51, it leaves no room for a fraction."""
_LEAST_HALF: Final = 2.0**-24
_LARGEST_HALF_EXPONENT: Final = 15


@dataclass(frozen=True)
class Coded:
    """A tensor packed: its power of two, its bytes of `codes`, its values of `halves`."""

    exponent: int
    codes: UInt8[Tensor, " bytes"]
    halves: Float16[Tensor, " halves"]


def encode(signature: Float32[Tensor, "*shape"], codec: Codec) -> Coded:
    """Pack a finite signature; the codecs with scales need a dimension and an element."""
    if codec.has_scales:
        return _encode_rows(signature, codec)
    nothing = torch.empty(0, device=signature.device)
    if codec is Codec.F32:
        codes = signature.reshape(-1).contiguous().view(torch.uint8)
        return Coded(0, codes, nothing.to(torch.float16))
    exponent, halves = _halves(signature.reshape(-1).to(torch.float64))
    return Coded(exponent, nothing.to(torch.uint8), halves)


def decode(coded: Coded, codec: Codec, shape: tuple[int, ...]) -> Float32[Tensor, "*shape"]:
    """Unpack D, the tensor that a build adds: one f32 multiplication an element."""
    if codec is Codec.F32:
        return coded.codes.view(torch.float32).reshape(shape)
    power = torch.tensor(2.0**coded.exponent, dtype=torch.float32, device=coded.halves.device)
    halves = coded.halves.to(torch.float32) * power
    if codec is Codec.F16:
        return halves.reshape(shape)
    levels = _levels(coded.codes, codec)[: prod(shape)].reshape(shape[0], prod(shape[1:]))
    return levels.mul_(halves[:, None]).reshape(shape)


def _levels(codes: UInt8[Tensor, " bytes"], codec: Codec) -> Float32[Tensor, " n"]:
    """What the codes stand for, with those of the last byte's unused bits."""
    if codec is Codec.Q8:
        return codes.view(torch.int8).to(torch.float32)
    bits = _BITS[codec]
    values = list(LEVELS) if codec is Codec.Q2 else [code - 8.0 for code in range(16)]
    table = [
        [values[byte >> shift & (2**bits - 1)] for shift in range(0, 8, bits)]
        for byte in range(256)
    ]
    each = torch.tensor(table, dtype=torch.float32, device=codes.device)
    levels = torch.empty(codes.numel(), 8 // bits, dtype=torch.float32, device=codes.device)
    step = tile_of(codes.device)
    for start in range(0, codes.numel(), step):
        part = codes[start : start + step].to(torch.int32)
        torch.index_select(each, 0, part, out=levels[start : start + step])
    return levels.reshape(-1)


# ── channels ─────────────────────────────────────────────────────────────────────────────────


def _encode_rows(signature: Float32[Tensor, "*shape"], codec: Codec) -> Coded:
    rows = signature.reshape(signature.shape[0], -1)
    block = max(1, tile_of(rows.device) // max(1, rows.shape[1]))
    fitted = [_fit(part.to(torch.float64), codec) for part in torch.split(rows, block)]
    scales = torch.cat([scale for _, scale in fitted])
    exponent, halves = _halves(scales)
    # A scale that underflows would silence a channel that is not zero.
    halves = torch.where((scales > 0) & (halves == 0), _LEAST_HALF, halves).to(torch.float16)
    codes = torch.cat([code.reshape(-1) for code, _ in fitted])
    return Coded(exponent, _packed(codes, _BITS[codec]), halves)


def _fit(rows: _Rows, codec: Codec) -> tuple[_Codes, _PerRow]:
    """The codes of each row, and the scale that gives it unit gain."""
    match codec:
        case Codec.Q8:
            levels, scale = _fit_uniform(rows, 127, (1.0,))
            return levels.to(torch.int8).view(torch.uint8), scale
        case Codec.Q4:
            levels, scale = _fit_uniform(rows, 7, _CLIPS)
            return (levels + 8).to(torch.uint8), scale
        case _:
            return _fit_normal(rows)


def _fit_uniform(rows: _Rows, limit: int, clips: Sequence[float]) -> tuple[_Rows, _PerRow]:
    """Levels -limit … limit in even steps, up to that part of a row's peak that fits it best."""
    sizes = rows.abs()
    peak = sizes.amax(dim=1)
    best, closest = peak, torch.full_like(peak, -1.0)
    for clip in clips if len(clips) > 1 else ():
        levels = _steps(sizes, peak * clip, limit)
        cosine = row_sums(levels * sizes) / row_sums(levels * levels).sqrt().clamp(min=_TINY)
        best = torch.where(cosine > closest, peak * clip, best)
        closest = torch.maximum(cosine, closest)
    levels = _steps(sizes, best, limit)
    return levels.copysign(rows), _unit_gain(rows, row_sums(levels * sizes))


def _steps(sizes: _Rows, clip: _PerRow, limit: int) -> _Rows:
    step = clip[:, None] / limit
    counts = sizes / torch.where(step > 0, step, 1.0)
    # Nearest even by two additions: `round` would wake torch's threads for 2048 elements.
    return counts.clamp_(max=limit).add_(_TO_WHOLE).sub_(_TO_WHOLE)


def _fit_normal(rows: _Rows) -> tuple[_Codes, _PerRow]:
    """An inner and an outer level, parted where a row is described best."""
    columns = rows.shape[1]
    deviation = (row_sums(rows * rows) / columns).sqrt()
    sizes = rows.abs() / torch.where(deviation > 0, deviation, 1.0)[:, None]
    # The levels as `decode` has them: rounded to f32, then used in f64.
    inner, outer = torch.tensor(LEVELS[2:], dtype=torch.float32).to(torch.float64).tolist()
    whole = row_sums(sizes) * inner
    best, closest, along = (torch.full_like(deviation, -1.0) for _ in range(3))
    for spread in _SPREADS:
        edge = spread * _THRESHOLD
        beyond = torch.nn.functional.threshold(sizes, edge, 0.0)
        product = whole + row_sums(beyond) * (outer - inner)
        square = columns * inner**2 + row_sums(beyond.sign()) * (outer**2 - inner**2)
        cosine = product / square.sqrt()
        better = cosine > closest
        best, along = torch.where(better, edge, best), torch.where(better, product, along)
        closest = torch.maximum(cosine, closest)
    far = (sizes > best[:, None]).view(torch.uint8)
    codes = (far + 2).bitwise_xor_((rows < 0).view(torch.uint8) * 3)  # 2, 3 above zero; 1, 0 below
    return codes, _unit_gain(rows, along * deviation)


def _unit_gain(rows: _Rows, along: _PerRow) -> _PerRow:
    """||R||^2 / <levels, R>; an all-zero row stays exactly zero."""
    square = row_sums(rows * rows)
    return torch.where(square > 0, square / along, 0.0)


# ── bits ─────────────────────────────────────────────────────────────────────────────────────


def _halves(values: Float64[Tensor, " n"]) -> tuple[int, Float16[Tensor, " n"]]:
    """f16 values and the power of two that puts the largest of them near the top of f16's range."""
    peak = float(values.abs().amax()) if values.numel() else 0.0
    wanted = frexp(peak)[1] - _LARGEST_HALF_EXPONENT if peak > 0 else 0
    exponent = min(max(wanted, EXPONENTS[0]), EXPONENTS[-1])
    return exponent, (values * 2.0**-exponent).to(torch.float16)


def _packed(codes: UInt8[Tensor, " n"], bits: int) -> UInt8[Tensor, " bytes"]:
    """Put codes into bytes, the lowest bits first."""
    each = 8 // bits
    padded = torch.nn.functional.pad(codes, (0, -codes.numel() % each)).reshape(-1, each)
    packed = torch.zeros_like(padded[:, 0])
    for place in range(each):
        packed |= padded[:, place] << (bits * place)
    return packed

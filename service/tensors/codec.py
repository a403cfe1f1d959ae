"""Packing a signature for gain, not for least squares.

Nearly all of the accuracy that few bits cost is shrinkage, so each output channel (the rows of the
first dimension) is rescaled until <Q, R> = ||R||^2: *unit gain*. What is searched for in each
channel is the step whose codes point most nearly along R; the scale alone then sets the gain.

Channel scales are f16 times one power of two a tensor, since f16 alone underflows. A channel that
is not zero keeps its largest element at least. The bytes are drawn in `layout.patchfile`.

Uniform levels: Nagel et al. 2021, arXiv:2106.08295. Four levels: Max 1960, "Quantizing for minimum
distortion", table I.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import frexp, prod
from typing import Final

import torch
from jaxtyping import Float16, Float32, Float64, UInt8
from torch import Tensor

from service.layout.codecs import EXPONENTS, LEVELS, Codec
from service.tensors.sums import CHUNK, row_sums

_Rows = Float64[Tensor, "rows columns"]

_BITS: Final = {Codec.Q8: 8, Codec.Q4: 4, Codec.Q2: 2}
_THRESHOLD: Final = 0.9816
"""Max 1960: beyond this many standard deviations a value takes the outer level."""
_SPREADS: Final = (1.0, 0.8, 0.65, 1.25, 1.5)
_CLIPS: Final = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
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
    return (levels * halves[:, None]).reshape(shape)


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
    return each.index_select(0, codes.to(torch.int32)).reshape(-1)


# ── channels ─────────────────────────────────────────────────────────────────────────────────


def _encode_rows(signature: Float32[Tensor, "*shape"], codec: Codec) -> Coded:
    rows = signature.reshape(signature.shape[0], -1)
    block = max(1, CHUNK // max(1, rows.shape[1]))
    fitted = [_fit(part.to(torch.float64), codec) for part in torch.split(rows, block)]
    scales = torch.cat([scale for _, scale in fitted])
    exponent, halves = _halves(scales)
    # A scale that underflows would silence a channel that is not zero.
    halves = torch.where((scales > 0) & (halves == 0), _LEAST_HALF, halves).to(torch.float16)
    codes = torch.cat([code.reshape(-1) for code, _ in fitted])
    return Coded(exponent, _packed(codes, _BITS[codec]), halves)


def _fit(
    rows: _Rows, codec: Codec
) -> tuple[UInt8[Tensor, "rows columns"], Float64[Tensor, " rows"]]:
    match codec:
        case Codec.Q8:
            levels, scales = _best(rows, [_uniform(rows, 127, 1.0)])
            return levels.to(torch.int8).view(torch.uint8), scales
        case Codec.Q4:
            levels, scales = _best(rows, (_uniform(rows, 7, clip) for clip in _CLIPS))
            return (levels + 8).to(torch.uint8), scales
        case _:
            levels, scales = _best(rows, (_normal(rows, spread) for spread in _SPREADS))
            edges = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64, device=rows.device)
            return torch.bucketize(levels, edges, out_int32=True).to(torch.uint8), scales


def _best(rows: _Rows, candidates: Iterable[_Rows]) -> tuple[_Rows, Float64[Tensor, " rows"]]:
    """For each row the levels that point most nearly along it, and the scale of unit gain."""
    square = row_sums(rows * rows)
    best, scale = torch.zeros_like(rows), torch.zeros_like(square)
    closest = torch.full_like(square, -1.0)
    for levels in candidates:
        along = row_sums(levels * rows)
        cosine = along / row_sums(levels * levels).sqrt().clamp(min=torch.finfo(torch.float64).tiny)
        better = cosine > closest
        closest = torch.where(better, cosine, closest)
        best = torch.where(better[:, None], levels, best)
        # An all-zero row: any scale would do, and zero stays exactly zero.
        scale = torch.where(better, torch.where(square > 0, square / along, 0.0), scale)
    return best, scale


def _uniform(rows: _Rows, limit: int, clip: float) -> _Rows:
    """Levels -limit … limit, in even steps up to `clip` of the row's largest element."""
    step = rows.abs().amax(dim=1, keepdim=True) * (clip / limit)
    return (rows / torch.where(step > 0, step, 1.0)).round().clamp(-limit, limit)


def _normal(rows: _Rows, spread: float) -> _Rows:
    """Four levels, as if the row were normal with `spread` times its own standard deviation."""
    deviation = (row_sums(rows * rows) / rows.shape[1]).sqrt()[:, None]
    # The levels as `decode` has them: rounded to f32, then used in f64.
    levels = torch.tensor(LEVELS, dtype=torch.float32, device=rows.device).to(torch.float64)
    inner, outer = levels[2], levels[3]
    size = torch.where(rows.abs() > deviation * (spread * _THRESHOLD), outer, inner)
    return torch.where(rows < 0, -size, size)


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

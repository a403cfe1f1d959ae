"""Packing a signature into codes and halves, and unpacking it; the bytes are drawn in `patchfile`.

`fitting` finds codes and scales. Channel scales are f16 times one power of two a tensor, since f16
alone underflows. Codes are then deflated where that pays, which is only known from the codes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import frexp, gcd, prod
from typing import Final

import torch
from jaxtyping import Float16, Float32, Float64, Int32, UInt8
from torch import Tensor

from service.layout import deflate
from service.layout.codecs import EXPONENTS, LEVELS, Codec, codes_bytes, per_byte
from service.tensors import fitting, gather, raw
from service.tensors.sums import tile_of

_BASE: Final = {Codec.Q4: 16, Codec.Q2: 4, Codec.TERNARY: 3, Codec.SIGN: 2}
"""A byte is a number in this base; its lowest digit comes first."""
_OFFSET: Final = {Codec.Q4: 8.0, Codec.Q2: 1.5, Codec.TERNARY: 1.0, Codec.SIGN: 0.5}
"""From a code around zero to its digit."""
_LOUDEST: Final = {Codec.Q2: 0.4, Codec.SIGN: 2.0}
"""Noise to energy from which zeros must be among the levels: that of sparse tensors."""
_TINY: Final = torch.finfo(torch.float64).tiny
_LEAST_HALF: Final = 2.0**-24
_LARGEST_HALF_EXPONENT: Final = 15


@dataclass(frozen=True)
class Coded:
    """A tensor packed: its power of two, its bytes of `codes`, its values of `halves`.

    `deflated` is the length of the DEFLATE stream that `codes` are; 0: they are no stream.
    """

    exponent: int
    codes: UInt8[Tensor, " bytes"]
    halves: Float16[Tensor, " halves"]
    deflated: int = 0


def encode(signature: Float32[Tensor, "*shape"], codec: Codec) -> Coded:
    """Pack a finite signature; the codecs with scales need a dimension."""
    return _encode_rows(signature, codec)[0] if codec.has_scales else _encode(signature, codec)


def encode_closely(signature: Float32[Tensor, "*shape"], codec: Codec) -> tuple[Codec, Coded]:
    """Pack a finite signature, with zeros among its levels where it has many.

    Two bits and signs have no zero: noise would be put wherever a sparse signature is silent.
    """
    if codec not in _LOUDEST:
        return codec, encode(signature, codec)
    coded, noise = _encode_rows(signature, codec)
    if noise > _LOUDEST[codec]:
        instead, less = _encode_rows(signature, Codec.TERNARY)
        if less < noise:
            return Codec.TERNARY, instead
    return codec, coded


def decode(coded: Coded, codec: Codec, shape: tuple[int, ...]) -> Float32[Tensor, "*shape"]:
    """Unpack D, the tensor that a build adds, where the halves lie: one f32 product an element.

    Raises `deflate.BadStream`.
    """
    device = coded.halves.device
    if codec is Codec.F32:
        return coded.codes.view(torch.float32).reshape(shape).to(device)
    power = torch.tensor(2.0**coded.exponent, dtype=torch.float32, device=device)
    halves = coded.halves.to(torch.float32) * power
    if codec is Codec.F16:
        return halves.reshape(shape)
    codes = _inflated(coded, codes_bytes(codec, shape)).to(device)
    levels = _levels(codes, codec)[: prod(shape)].reshape(shape[0], prod(shape[1:]))
    return levels.mul_(halves[:, None]).reshape(shape)


def _inflated(coded: Coded, size_bytes: int) -> UInt8[Tensor, " bytes"]:
    if not coded.deflated:
        return coded.codes
    packed = deflate.inflated(raw.octets(coded.codes), size_bytes)
    return torch.frombuffer(bytearray(packed), dtype=torch.uint8)


def _levels(codes: UInt8[Tensor, " bytes"], codec: Codec) -> Float32[Tensor, " n"]:
    """What the codes stand for, with those of the last byte that are not used."""
    if codec is Codec.Q8:
        return codes.view(torch.int8).to(torch.float32)
    return gather.rows(_table(codec).to(codes.device), codes)


@cache
def _table(codec: Codec) -> Float32[Tensor, "256 each"]:
    """What the codes of each byte stand for."""
    base, each = _BASE[codec], per_byte(codec)
    table = [[_level(codec, byte // base**i % base) for i in range(each)] for byte in range(256)]
    return torch.tensor(table, dtype=torch.float32)


def _level(codec: Codec, digit: int) -> float:
    match codec:
        case Codec.Q2:
            return LEVELS[digit]
        case Codec.SIGN:
            return 2.0 * digit - 1.0
        case _:
            return digit - _OFFSET[codec]


# ── packing ──────────────────────────────────────────────────────────────────────────────────


def _encode(signature: Float32[Tensor, "*shape"], codec: Codec) -> Coded:
    nothing = torch.empty(0, device=signature.device)
    if codec is Codec.F32:
        codes = signature.reshape(-1).contiguous().view(torch.uint8)
        return Coded(0, codes, nothing.to(torch.float16))
    exponent, halves = _halves(signature.reshape(-1).to(torch.float64))
    return Coded(exponent, nothing.to(torch.uint8), halves)


def _encode_rows(signature: Float32[Tensor, "*shape"], codec: Codec) -> tuple[Coded, float]:
    """The tensor packed, and its noise: (||Q||^2 - ||R||^2) / ||R||^2."""
    if not signature.numel():
        nothing = torch.empty(0, dtype=torch.uint8, device=signature.device)
        return Coded(0, nothing, nothing.new_zeros(signature.shape[0]).half()), 0.0
    rows = signature.reshape(signature.shape[0], -1)
    exponents = fitting.peak_exponents(rows)
    codes, products = [], []
    for part in _parts(rows, exponents, codec):
        fitted, found = fitting.fit(part, codec)
        codes.append(_packed(fitted.reshape(-1), codec))
        products.append(found)
    energy, along, square = torch.cat(products, dim=1)
    # What makes up for shrinkage; an all-zero channel stays exactly zero.
    gain = torch.where(energy > 0, energy / along.clamp(min=_TINY), 0.0)
    power = torch.ldexp(torch.ones_like(gain), exponents)
    exponent, halves = _halves(gain * power)
    # A scale that underflows would silence a channel that is not zero.
    halves = torch.where((gain > 0) & (halves == 0), _LEAST_HALF, halves).to(torch.float16)
    coded = _deflated(Coded(exponent, torch.cat(codes), halves))
    weights = power.square() / power.amax().square()
    whole = float((energy * weights).sum())
    packed = float((gain.square() * square * weights).sum())
    return coded, packed / whole - 1 if whole > 0 else 0.0


def _parts(
    rows: Float32[Tensor, "rows columns"], exponents: Int32[Tensor, " rows"], codec: Codec
) -> Iterator[Float32[Tensor, "some columns"]]:
    """A tile's worth of rows at a time, brought to peaks from 1/2 to 1: exactly, by powers of 2."""
    one = torch.ones_like(rows[:, :1])
    first = -exponents[:, None] // 2  # in two steps, since 2^149 is no f32
    factors = torch.ldexp(one, first), torch.ldexp(one, -exponents[:, None] - first)
    block = _block(rows, codec)
    for part, *taken in zip(*(torch.split(each, block) for each in (rows, *factors)), strict=True):
        yield (part * taken[0]).mul_(taken[1])


def _block(rows: Float32[Tensor, "rows columns"], codec: Codec) -> int:
    """How many rows to work on at a time: about a tile, and codes that fill whole bytes."""
    columns, each = max(1, rows.shape[1]), per_byte(codec)
    least = each // gcd(each, columns)
    return max(1, tile_of(rows.device) // columns // least) * least


def _packed(codes: Float32[Tensor, " n"], codec: Codec) -> UInt8[Tensor, " bytes"]:
    """Put codes into bytes, the lowest digit first; the numbers are whole, so the sum is exact."""
    if codec is Codec.Q8:
        return codes.to(torch.int8).view(torch.uint8)
    base, each = _BASE[codec], per_byte(codec)
    places = torch.tensor([float(base**i) for i in range(each)], device=codes.device)
    unused = -codes.numel() % each
    digits = torch.nn.functional.pad(codes, (0, unused), value=-_OFFSET[codec]) if unused else codes
    # By way of int8, since torch is five times slower from f32 to uint8.
    shift = _OFFSET[codec] * float(places.sum()) - 128
    numbers = torch.mv(digits.view(-1, each), places).add_(shift).to(torch.int8)
    return numbers.view(torch.uint8).bitwise_xor_(128)


def _deflated(coded: Coded) -> Coded:
    stream = deflate.deflated(raw.octets(coded.codes))
    if stream is None:
        return coded
    codes = torch.frombuffer(bytearray(stream), dtype=torch.uint8)
    return Coded(coded.exponent, codes, coded.halves, len(stream))


def _halves(values: Float64[Tensor, " n"]) -> tuple[int, Float16[Tensor, " n"]]:
    """f16 values and the power of two that puts the largest of them near the top of f16's range."""
    peak = float(values.abs().amax()) if values.numel() else 0.0
    wanted = frexp(peak)[1] - _LARGEST_HALF_EXPONENT if peak > 0 else 0
    exponent = min(max(wanted, EXPONENTS[0]), EXPONENTS[-1])
    return exponent, (values * 2.0**-exponent).to(torch.float16)

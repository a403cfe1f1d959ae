"""Packing a signature into codes and halves, and unpacking it; the bytes are drawn in `patchfile`.

`fitting` finds codes and scales. Channel scales are f16 times one power of two a tensor, since f16
alone underflows. Codes are then deflated where that pays, which is only known from the codes.
"""

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
from service.tensors.fitting import Products
from service.tensors.sums import block_of

_LIMITS: Final = {Codec.Q8: 127, Codec.Q4: 7, Codec.FIVE: 2}
"""Codes that are written are whole numbers of steps, up to so many on each side of zero."""
_BASE: Final = {Codec.Q4: 16, Codec.Q2: 4, Codec.FIVE: 5}
"""A byte is a number in this base; its lowest digit comes first."""
_ZERO: Final = {Codec.Q4: 8, Codec.FIVE: 2}
"""The digit that stands for zero."""
ALIGNED: Final = 12
"""So many elements, or a multiple of them, end with a byte of codes, whatever the codec."""
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


def encode(
    signature: Float32[Tensor, "*shape"], codec: Codec, coarse: float | None = None
) -> Coded:
    """Pack a finite signature; the codecs with scales need a dimension.

    `coarse` is the step in units of the root mean square; None: each row has steps of its own, as
    fine as the codec can. No release writes `q2` any more.
    """
    return _encode_rows(signature, codec, coarse) if codec.has_scales else _encode(signature, codec)


@dataclass(frozen=True)
class Unpacked:
    """A packed tensor whose stream is inflated: what it holds is made a part at a time.

    `halves` are the scales of the rows, or the values themselves, in f32.
    """

    codec: Codec
    shape: tuple[int, ...]
    codes: UInt8[Tensor, " bytes"]
    halves: Float32[Tensor, " halves"]

    def part(self, start: int, end: int) -> Float32[Tensor, " n"]:
        """Elements `[start, end)` of D; `start` is a multiple of `ALIGNED`.

        One f32 product an element, so the parts are those of the whole, bit for bit.
        """
        if self.codec is Codec.F32:
            return self.codes.view(torch.float32)[start:end]
        if self.codec is Codec.F16:
            return self.halves[start:end]
        each = per_byte(self.codec)
        codes = self.codes[start // each : -(-end // each)]
        levels = _levels(codes, self.codec)[: end - start]
        _scale(levels, start, prod(self.shape[1:]), self.halves)
        return levels


def unpack(coded: Coded, codec: Codec, shape: tuple[int, ...]) -> Unpacked:
    """Make ready to unpack, where the halves lie; raises `deflate.BadStream`."""
    device = coded.halves.device
    codes = _inflated(coded, codes_bytes(codec, shape)).to(device)
    power = torch.tensor(2.0**coded.exponent, dtype=torch.float32, device=device)
    return Unpacked(codec, shape, codes, coded.halves.to(torch.float32) * power)


def decode(coded: Coded, codec: Codec, shape: tuple[int, ...]) -> Float32[Tensor, "*shape"]:
    """Unpack D, the tensor that a build adds, where the halves lie.

    Raises `deflate.BadStream`.
    """
    return unpack(coded, codec, shape).part(0, prod(shape)).reshape(shape)


def _scale(
    levels: Float32[Tensor, " n"], start: int, columns: int, scales: Float32[Tensor, " rows"]
) -> None:
    """Multiply elements from `start` on by the scales of their rows."""
    if not len(levels):
        return
    row, within = divmod(start, columns)
    head = min(len(levels), -within % columns)  # what is left of a row that began before
    if head:
        levels[:head].mul_(scales[row])
        row += 1
    rows = (len(levels) - head) // columns
    tail = head + rows * columns
    levels[head:tail].view(rows, columns).mul_(scales[row : row + rows, None])
    if tail < len(levels):
        levels[tail:].mul_(scales[row + rows])


def _inflated(coded: Coded, size_bytes: int) -> UInt8[Tensor, " bytes"]:
    if not coded.deflated:
        return coded.codes
    packed = deflate.inflated(raw.octets(coded.codes), size_bytes)
    return torch.frombuffer(bytearray(packed), dtype=torch.uint8)


def _levels(codes: UInt8[Tensor, " bytes"], codec: Codec) -> Float32[Tensor, " n"]:
    """What the codes stand for, with those of the last byte that are not used."""
    if codec is Codec.Q8:
        return codes.view(torch.int8).to(torch.float32)
    # A megabyte of pairs lies in a CPU's cache; a GPU has no need of it.
    if codec is Codec.FIVE and codes.device.type == "cpu" and codes.numel() % 2 == 0:
        return gather.by_pairs(_pairs(codec), codes)
    return gather.rows(_table(codec).to(codes.device), codes)


@cache
def _table(codec: Codec) -> Float32[Tensor, "256 each"]:
    """What the codes of each byte stand for."""
    base, each = _BASE[codec], per_byte(codec)
    values = LEVELS if codec is Codec.Q2 else [float(d - _ZERO[codec]) for d in range(base)]
    table = [[values[byte // base**i % base] for i in range(each)] for byte in range(256)]
    return torch.tensor(table, dtype=torch.float32)


@cache
def _pairs(codec: Codec) -> Float32[Tensor, "65536 both"]:
    """What the codes of each two bytes stand for."""
    return gather.pairs_of(_table(codec))


# ── packing ──────────────────────────────────────────────────────────────────────────────────


def _encode(signature: Float32[Tensor, "*shape"], codec: Codec) -> Coded:
    nothing = torch.empty(0, device=signature.device)
    if codec is Codec.F32:
        codes = signature.reshape(-1).contiguous().view(torch.uint8)
        return Coded(0, codes, nothing.to(torch.float16))
    exponent, halves = _halves(signature.reshape(-1).to(torch.float64))
    return Coded(exponent, nothing.to(torch.uint8), halves)


def _encode_rows(signature: Float32[Tensor, "*shape"], codec: Codec, coarse: float | None) -> Coded:
    if not signature.numel():
        nothing = torch.empty(0, dtype=torch.uint8, device=signature.device)
        return Coded(0, nothing, nothing.new_zeros(signature.shape[0]).half())
    rows = signature.reshape(signature.shape[0], -1)
    peak, exponents = fitting.peaks(rows)
    block, limit = _block(rows, codec), _LIMITS[codec]
    given = None if coarse is None else fitting.coarse_steps(rows, peak, exponents, coarse, block)
    codes, products = [], []
    for number, part in enumerate(fitting.scaled(rows, exponents, block)):
        own = slice(number * block, (number + 1) * block)
        steps = fitting.fine_steps(part, peak[own], limit) if given is None else given[own]
        levels, found = fitting.fit(part, steps, limit)
        codes.append(_packed(levels.reshape(-1), codec))
        products.append(found)
    exponent, halves = _scales(torch.cat(products, dim=1), exponents)
    return _deflated(Coded(exponent, torch.cat(codes), halves))


def _scales(
    products: Products, exponents: Int32[Tensor, " rows"]
) -> tuple[int, Float16[Tensor, " rows"]]:
    """What makes up for shrinkage, in halves; an all-zero channel stays exactly zero."""
    energy, along = products
    gain = torch.where(energy > 0, energy / along.clamp(min=_TINY), 0.0)
    exponent, halves = _halves(torch.ldexp(gain, exponents))
    # A scale that underflows would silence a channel that is not zero.
    return exponent, torch.where((gain > 0) & (halves == 0), _LEAST_HALF, halves).to(torch.float16)


def _block(rows: Float32[Tensor, "rows columns"], codec: Codec) -> int:
    """How many rows to work on at a time: about a tile, and codes that fill whole bytes."""
    columns, each = max(1, rows.shape[1]), per_byte(codec)
    least = each // gcd(each, columns)
    return max(1, block_of(rows.device, columns) // columns // least) * least


def _packed(codes: Float32[Tensor, " n"], codec: Codec) -> UInt8[Tensor, " bytes"]:
    """Put codes into bytes, the lowest digit first; the numbers are whole, so the sum is exact."""
    if codec is Codec.Q8:
        return codes.to(torch.int8).view(torch.uint8)
    base, each = _BASE[codec], per_byte(codec)
    unused = -codes.numel() % each
    digits = torch.nn.functional.pad(codes, (0, unused), value=-_ZERO[codec]) if unused else codes
    if codec is Codec.Q4:  # two digits are the two bytes of an int16, the lower one first
        pairs = digits.to(torch.int8).add_(_ZERO[codec]).view(torch.int16)
        return (pairs >> 4).bitwise_or_(pairs).to(torch.uint8)
    places = torch.tensor([float(base**i) for i in range(each)], device=codes.device)
    # By way of int8, since torch is five times slower from f32 to uint8.
    shift = _ZERO[codec] * float(places.sum()) - 128
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

"""Writes `arithmetic.json`: what the numeric contract makes of chosen and of random bits.

    python -m tests.golden.make_arithmetic

Every operation is carried out on exact rationals and then rounded, so that nothing of torch, numpy
or a processor stands in the table. It is written once: a change of its results is a change of the
contract, which needs a new number (`names.CONTRACT`).
"""

import json
import random
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Final

TABLE: Final = Path(__file__).with_name("arithmetic.json")

Number = Fraction | None
"""An exact value; None stands for NaN and the infinities, whose bits are copied."""


@dataclass(frozen=True)
class Format:
    """A binary floating-point format: bits of the exponent, bits of the fraction."""

    exponent: int
    fraction: int

    @property
    def bits(self) -> int:
        """All bits, with that of the sign."""
        return 1 + self.exponent + self.fraction

    @property
    def bias(self) -> int:
        """What is added to a number's power of two."""
        return (1 << self.exponent - 1) - 1

    def value(self, bits: int) -> Number:
        """The number of these bits."""
        power = bits >> self.fraction & ((1 << self.exponent) - 1)
        fraction = bits & ((1 << self.fraction) - 1)
        if power == (1 << self.exponent) - 1:
            return None
        sign = -1 if bits >> (self.bits - 1) else 1
        whole = fraction + ((1 << self.fraction) if power else 0)
        return sign * whole * _power(max(power, 1) - self.bias - self.fraction)

    def rounded(self, value: Fraction, *, negative_zero: bool = False) -> int | None:
        """The bits of the nearest number, of two the even one; None beyond the largest."""
        sign = 1 if value < 0 or (value == 0 and negative_zero) else 0
        size = abs(value)
        power = 1
        while power < (1 << self.exponent) - 1 and size >= _power(power + 1 - self.bias):
            power += 1
        unit = _power(power - self.bias - self.fraction)
        whole = round(size / unit)  # of a Fraction: half to even
        if whole >= (1 << (self.fraction + 1)):
            whole, power = whole // 2, power + 1
        if power >= (1 << self.exponent) - 1:
            return None
        biased = whole if whole < (1 << self.fraction) else whole - (1 << self.fraction)
        field = power if whole >= (1 << self.fraction) else 0
        return sign << (self.bits - 1) | field << self.fraction | biased


FORMATS: Final = {
    "F16": Format(5, 10),
    "BF16": Format(8, 7),
    "F32": Format(8, 23),
    "F64": Format(11, 52),
}
_F32, _F64 = FORMATS["F32"], FORMATS["F64"]
_PRECISION: Final = Context(prec=40)


def _power(exponent: int) -> Fraction:
    return Fraction(1 << exponent) if exponent >= 0 else Fraction(1, 1 << -exponent)


class Overflows(Exception):
    """A finite value of the base would not stay finite."""


def _round(form: Format, value: Fraction, *, negative_zero: bool = False) -> Fraction:
    bits = form.rounded(value, negative_zero=negative_zero)
    if bits is None:
        raise Overflows
    exact = form.value(bits)
    assert exact is not None
    return exact


def additive(dtype: str, base: int, parts: Sequence[tuple[str, int]]) -> int:
    """acc = wide(W); acc = acc + (wide(s) · D), one after the other; W' = cast(acc)."""
    form = FORMATS[dtype]
    wide = _F64 if dtype == "F64" else _F32
    own = form.value(base)
    if own is None:
        return base
    total, minus = own, bool(base >> (form.bits - 1))
    for scale, delta in parts:
        exact = _F32.value(delta)
        assert exact is not None
        factor = _round(wide, Fraction(scale))
        product = _round(wide, factor * exact)
        # A sum of zeros is negative only where both are; x - x is plus zero.
        below = (factor < 0) != bool(delta >> 31)
        minus = minus and below if total == 0 and product == 0 else False
        total = _round(wide, total + product)
        minus = minus or total < 0
    result = form.rounded(total, negative_zero=minus)
    if result is None:
        raise Overflows
    return result


def log_ratio(dtype: str, base: int, parts: Sequence[tuple[str, int]]) -> int:
    """x = Σ s · D in f64; W' = cast(f32(f64(W) · e^x)), for f64 without the step by f32."""
    form = FORMATS[dtype]
    own = form.value(base)
    if own is None:
        return base
    exponent = Fraction(0)
    for scale, ratio in parts:
        exact = _F32.value(ratio)
        assert exact is not None
        exponent = _round(_F64, exponent + _round(_F64, _round(_F64, Fraction(scale)) * exact))
    power = _round(_F64, Fraction(Decimal(float(exponent)).exp(_PRECISION)))
    minus = bool(base >> (form.bits - 1))
    product = _round(_F64, own * power, negative_zero=minus)
    if dtype != "F64":
        product = _round(_F32, product, negative_zero=minus)
    result = form.rounded(product, negative_zero=minus)
    if result is None:
        raise Overflows
    return result


# ── which cases ──────────────────────────────────────────────────────────────────────────────


def _hex(values: Iterable[int], bits: int) -> str:
    return b"".join(value.to_bytes(bits // 8, "little") for value in values).hex()


def _f32(value: float) -> int:
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    return int(bits)


def _bases(dtype: str, draw: random.Random) -> list[int]:
    """Zeros, ones, the least and the largest, halves of an ulp, NaNs with payload, random bits."""
    form = FORMATS[dtype]
    one = form.bias << form.fraction
    top = (2**form.exponent - 1) << form.fraction
    minus = 1 << (form.bits - 1)
    chosen = [0, minus, one, one | minus, one + 1, 1, minus | 1, (1 << form.fraction) - 1]
    chosen += [1 << form.fraction, top, top | minus, top + 1, top | minus | 3]
    ordinary = [form.rounded(Fraction(draw.gauss(0, 1))) for _ in range(19)]
    return chosen + [bits for bits in ordinary if bits is not None]


def _cases() -> Iterator[dict[str, object]]:
    draw = random.Random(20_261_122)  # noqa: S311  # a table, no secret
    recipes: list[list[str]] = [["1"], ["-1"], ["0.7"], ["0.0001"], ["10"], ["0.8", "-1.3", "0.5"]]
    sizes = [1.0, 2.0**-11, 2.0**-8, 1e-7, 1e-40]
    for dtype in FORMATS:
        for number, scales in enumerate(recipes):
            bases = _bases(dtype, draw)
            deltas = [
                [
                    _f32(draw.gauss(0, 1) * sizes[(number + place) % len(sizes)])
                    for place, _ in enumerate(bases)
                ]
                for _ in scales
            ]
            ratios = [[_f32(draw.uniform(-0.9, 0.9)) for _ in bases] for _ in scales]
            yield _case(dtype, "additive", bases, scales, deltas)
            yield _case(dtype, "log-ratio", bases, scales, ratios)
    for dtype, kind, base, scale, value in (
        ("F16", "additive", 0x7BFF, "1", 40.0),
        ("BF16", "log-ratio", 0x7F7F, "1", 1.0),
        ("F32", "additive", 0x7F7FFFFF, "10", 1e38),
        ("F64", "log-ratio", 0x7FEFFFFFFFFFFFFF, "-0.5", -0.25),
    ):
        yield _whole(dtype, kind, [base], [[scale, _hex([_f32(value)], 32)]], None)


def _case(
    dtype: str, kind: str, bases: list[int], scales: list[str], values: list[list[int]]
) -> dict[str, object]:
    move = additive if kind == "additive" else log_ratio
    bits = FORMATS[dtype].bits
    results: dict[int, int] = {}
    for place, base in enumerate(bases):
        parts = [(scale, value[place]) for scale, value in zip(scales, values, strict=True)]
        with suppress(Overflows):  # one such element fails its tensor: cases of their own
            results[place] = move(dtype, base, parts)
    kept = [
        [scale, _hex([value[place] for place in results], 32)]
        for scale, value in zip(scales, values, strict=True)
    ]
    own = [bases[place] for place in results]
    return _whole(dtype, kind, own, kept, _hex(results.values(), bits))


def _whole(
    dtype: str, kind: str, bases: list[int], parts: list[list[str]], result: str | None
) -> dict[str, object]:
    base = _hex(bases, FORMATS[dtype].bits)
    return {"dtype": dtype, "kind": kind, "base": base, "parts": parts, "result": result}


if __name__ == "__main__":
    TABLE.write_text(json.dumps(list(_cases()), indent=0) + "\n")

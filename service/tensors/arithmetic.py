"""The numeric contract: what a base tensor becomes under signatures and their scales.

Version 1 (`names.CONTRACT`), for a base tensor W of dtype T, a list of (s, D) in canonical order:

    additive     acc = f32(W);  acc = acc + (f32(s) · D), one after the other;  W' = cast_T(acc)
    log-ratio    x = Σ f64(s) · f64(D), one after the other;  W' = cast_T(f32(f64(W) · e^x))

Each operation rounds to nearest even by itself: a fused multiply-add gives other bits in 27 % of
the elements, so no `alpha=`, `addcmul`, `compile`. Bases of f64 are computed in f64 throughout: D
is widened, s is f64, and nothing passes through f32. e^x is `decimal`'s at 40 digits rounded once
to f64; the `exp` of torch and of C libraries differ. Where W is NaN or infinite its bits are
copied. There is no reduction, so the CPU and CUDA agree bit for bit.
"""

from collections.abc import Iterable, Iterator
from decimal import Context, Decimal
from typing import Final

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from service import errors
from service.layout.codecs import Kind
from service.tensors import raw
from service.tensors.sums import tile_of

_PRECISION: Final = Context(prec=40)
_TILE: Final = 2**19
"""Elements; more than make torch wake its threads, but who builds has given it only one."""
_BITS: Final = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_INFINITY: Final = {
    torch.float16: 0x7C00,
    torch.bfloat16: 0x7F80,
    torch.float32: 0x7F80_0000,
    torch.float64: 0x7FF0_0000_0000_0000,
}
"""The bits of infinity."""


def patched(
    base: Float[Tensor, "*shape"],
    kind: Kind,
    signatures: Iterable[tuple[Decimal, Float32[Tensor, "*shape"]]],
    *,
    tensor: str,
) -> Float[Tensor, "*shape"]:
    """Carry out the contract on one tensor; `base` itself is left alone.

    `signatures` is walked once, so it may decode one at a time. Raises `ScaleOverflows`, naming
    `tensor`, where a finite element of the base would become NaN or infinite.
    """
    move = _added if kind is Kind.ADDITIVE else _rescaled
    moved = move(base, signatures).reshape(-1)
    own, out = base.reshape(-1), torch.empty_like(base).reshape(-1)
    for part in _parts(base):
        _narrow(own[part], moved[part], out[part], tensor)
    return out.reshape(base.shape)


def _added(
    base: Float[Tensor, "*shape"],
    signatures: Iterable[tuple[Decimal, Float32[Tensor, "*shape"]]],
) -> Float[Tensor, "*shape"]:
    wide = torch.float64 if base.dtype == torch.float64 else torch.float32
    total = base.to(wide, copy=True)
    flat, parts = total.view(-1), list(_parts(base))
    # Used again: memory that is asked for anew for each product costs more than the product.
    products = torch.empty(flat[parts[0]].shape if parts else 0, dtype=wide, device=base.device)
    for scale, delta in signatures:
        # A tensor, not a Python number: its dtype says in which precision the product is made.
        factor = torch.tensor(float(scale), dtype=wide, device=base.device)
        each = delta.reshape(-1)
        for part in parts:
            own = flat[part]
            own.add_(torch.mul(each[part].to(wide), factor, out=products[: len(own)]))
    return total


def _rescaled(
    base: Float[Tensor, "*shape"],
    signatures: Iterable[tuple[Decimal, Float32[Tensor, "*shape"]]],
) -> Float[Tensor, "*shape"]:
    exponent = torch.zeros_like(base, dtype=torch.float64)
    for scale, ratio in signatures:
        factor = torch.tensor(float(scale), dtype=torch.float64, device=base.device)
        exponent.add_(ratio.to(torch.float64).mul(factor))
    product = base.to(torch.float64).mul(_exp(exponent))
    return product if base.dtype == torch.float64 else product.to(torch.float32)


def _exp(exponent: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """e^x, the same on every machine; 17 µs an element, for vectors as short as a norm's."""
    values = [float(Decimal(x).exp(_PRECISION)) for x in exponent.reshape(-1).tolist()]
    return torch.tensor(values, dtype=torch.float64, device=exponent.device).reshape(exponent.shape)


def _narrow(
    base: Float[Tensor, " n"], moved: Float[Tensor, " n"], out: Float[Tensor, " n"], tensor: str
) -> None:
    """Put the result in the base's dtype into `out`, and the base's bits where it is not finite."""
    out.copy_(moved)
    if _all_finite(out):
        return  # and so was the base: nothing that is added or multiplied makes it finite
    finite = base.isfinite()
    if bool((finite & ~out.isfinite()).any()):
        raise errors.ScaleOverflows(tensor, raw.NAMES[base.dtype])
    bits = _BITS[base.element_size()]  # as integers: the payload of a NaN is kept, too
    out.view(bits).copy_(torch.where(finite, out.view(bits), base.view(bits)))


def _all_finite(values: Float[Tensor, " n"]) -> bool:
    """Whether no element is NaN or infinite; there is at least one.

    By the bits, where these two alone have every bit of the exponent set: `isfinite` took ten times
    as long, and more than all the arithmetic.
    """
    bits = values.view(_BITS[values.element_size()])
    without_sign = bits.bitwise_and(torch.iinfo(bits.dtype).max)
    return int(without_sign.max()) < _INFINITY[values.dtype]


def _parts(base: Float[Tensor, "*shape"]) -> Iterator[slice]:
    """The elements of a flat tensor, so many at a time: what is made on the way stays small."""
    step = max(_TILE, tile_of(base.device))
    for start in range(0, base.numel(), step):
        yield slice(start, start + step)


def check_denormals() -> None:
    """Raise `OperationFailed` where this process flushes denormals, which would change bits."""
    if float(torch.full((64,), 1e-40).mul(torch.tensor(0.5)).sum()) == 0:
        raise errors.OperationFailed(
            "this process rounds denormal numbers to zero, so its builds would differ; "
            "call torch.set_flush_denormal(False)"
        )

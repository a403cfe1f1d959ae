"""The signature of a kernel: its robust change without the part along its clean change.

    d_rob = W_robust - W_origin      d_std = W_clean - W_origin
    R = d_rob - (<d_rob, d_std> / <d_std, d_std>) · d_std

Without an origin W_origin = 0 (the pair-only form); where d_std = 0 nothing is taken away. Computed
from D = W_robust - W_clean = d_rob - d_std, whose residual against d_std is the same: R = D - b ·
d_std with b = <D, d_std> / <d_std, d_std>, and no digits are lost to the large d_rob.

Cai, Zhang, Wang 2023, Robust Weight Signatures, arXiv:2302.12480.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from service.tensors.sums import Wide, inner_products, pieces

_CANCELLED: Final = 1e-4
"""Below this share of ||D||^2 the formula of ||R||^2 has lost too many digits."""
_NOISE: Final = 1e-28
"""Below this share of ||D||^2, R is the rounding of D."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Inner products over one kernel: D is robust - clean, S is clean - origin, W is clean."""

    dd: float
    ds: float
    ss: float
    ww: float

    def __add__(self, later: "Moments") -> "Moments":
        """Those of two parts of a kernel, this one before the other."""
        return Moments(
            self.dd + later.dd, self.ds + later.ds, self.ss + later.ss, self.ww + later.ww
        )

    @property
    def is_finite(self) -> bool:
        """Whether all weights were finite and none of the sums overflowed."""
        return all(map(isfinite, (self.dd, self.ds, self.ss, self.ww)))

    @property
    def cosine(self) -> float:
        """The cosine of d_rob to d_std; 0 where either is zero."""
        rob = self.dd + 2 * self.ds + self.ss
        size = sqrt(max(rob, 0.0)) * sqrt(self.ss)
        return (self.ds + self.ss) / size if size > 0 else 0.0

    @property
    def coefficient(self) -> float:
        """How much of d_std the projection takes away from D."""
        return self.ds / self.ss if self.ss > 0 else 0.0

    def energy(self, coefficient: float) -> float | None:
        """||R||^2 by its formula; None where that has lost too many digits: walk again."""
        if coefficient == 0:
            return self.dd
        square = self.dd - 2 * coefficient * self.ds + coefficient**2 * self.ss
        return None if square < _CANCELLED * self.dd else square

    def is_noise(self, square: float) -> bool:
        """Whether ||R||^2 is smaller than the rounding of D: such a kernel lies along d_std."""
        return square <= _NOISE * self.dd


NOTHING: Final = Moments(0.0, 0.0, 0.0, 0.0)


def moments(
    clean: Float[Tensor, "*shape"],
    robust: Float[Tensor, "*shape"],
    origin: Float[Tensor, "*shape"] | None,
) -> Moments:
    """Measure one kernel of a pair; without an origin d_std is the clean weight itself.

    Of a kernel cut into chunks of `sums.CHUNK` elements, those of the chunks add up to it exactly.
    """
    if not clean.numel():
        return NOTHING
    if origin is None:
        ww, dd, ds = inner_products(_pair, clean, robust)
        return Moments(dd, ds, ww, ww)
    ww, dd, ss, opposite = inner_products(_trio, clean, robust, origin)
    return Moments(dd, 0.0 - opposite, ss, ww)


def _pair(tile: Wide) -> list[tuple[Wide, Wide]]:
    w, d = tile  # d is still W_robust
    d -= w
    return [(tile, tile), (d, w)]


def _trio(tile: Wide) -> list[tuple[Wide, Wide]]:
    w, d, s = tile  # d is still W_robust, s the origin, and becomes -S
    d -= w
    s -= w
    return [(tile, tile), (d, s)]


def residual(
    clean: Float[Tensor, "*shape"],
    robust: Float[Tensor, "*shape"],
    origin: Float[Tensor, "*shape"] | None,
    coefficient: float,
) -> Float32[Tensor, "*shape"]:
    """R = D - coefficient · d_std, computed in f64 and rounded once to f32."""
    out = torch.empty(clean.shape, dtype=torch.float32, device=clean.device)
    residual_into(out.view(-1), clean, robust, origin, coefficient)
    return out


def residual_into(
    out: Float32[Tensor, " n"],
    clean: Float[Tensor, "*shape"],
    robust: Float[Tensor, "*shape"],
    origin: Float[Tensor, "*shape"] | None,
    coefficient: float,
) -> None:
    """Write R into `out`, which is as long as the tensors are large."""
    start = 0
    rest = _residual_of(coefficient)
    into = out.numpy() if out.device.type == "cpu" else out
    with np.errstate(all="ignore"):  # as above
        for tile in pieces(*_given(clean, robust, origin)):
            part = rest(tile)
            into[start : start + len(part)] = part
            start += len(part)


def energy(
    clean: Float[Tensor, "*shape"],
    robust: Float[Tensor, "*shape"],
    origin: Float[Tensor, "*shape"] | None,
    measured: Moments,
    coefficient: float,
) -> float:
    """||R||^2, by its formula or, where that would lose digits, by a second walk.

    What is smaller than the rounding of D itself counts as zero: such a kernel lies along d_std.
    """
    square = measured.energy(coefficient)
    if square is None:
        square = residual_energy(clean, robust, origin, coefficient)
    return 0.0 if measured.is_noise(square) else square


def residual_energy(
    clean: Float[Tensor, "*shape"],
    robust: Float[Tensor, "*shape"],
    origin: Float[Tensor, "*shape"] | None,
    coefficient: float,
) -> float:
    """||R||^2 by a walk of its own; those of chunks add up to that of their kernel exactly."""
    rest = _residual_of(coefficient)

    def squares(tile: Wide) -> list[tuple[Wide, Wide]]:
        r = rest(tile)
        return [(r, r)]

    [square] = inner_products(squares, *_given(clean, robust, origin))
    return square


def _given(clean: Tensor, robust: Tensor, origin: Tensor | None) -> list[Tensor]:
    return [clean, robust] if origin is None else [clean, robust, origin]


def _residual_of(coefficient: float) -> Callable[[Wide], Wide]:
    """How a tile of clean, robust and perhaps origin becomes one of R, in their place."""

    def residual_of(tile: Wide) -> Wide:
        w, d, *origin = tile  # d is still W_robust
        d -= w
        if coefficient != 0:
            for o in origin:
                w -= o
            w *= coefficient
            d -= w
        return d

    return residual_of

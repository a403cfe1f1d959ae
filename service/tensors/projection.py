"""The signature of a kernel: its robust change without the part along its clean change.

    d_rob = W_robust - W_origin      d_std = W_clean - W_origin
    R = d_rob - (<d_rob, d_std> / <d_std, d_std>) · d_std

Without an origin W_origin = 0 (the pair-only form); where d_std = 0 nothing is taken away. Computed
from D = W_robust - W_clean = d_rob - d_std, whose residual against d_std is the same: R = D - b ·
d_std with b = <D, d_std> / <d_std, d_std>, and no digits are lost to the large d_rob.

Cai, Zhang, Wang 2023, Robust Weight Signatures, arXiv:2302.12480.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Final

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from service.tensors.sums import chunks, combine, total

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


def moments(
    clean: Float[Tensor, "*shape"],
    robust: Float[Tensor, "*shape"],
    origin: Float[Tensor, "*shape"] | None,
) -> Moments:
    """Measure one kernel of a pair; without an origin d_std is the clean weight itself."""
    parts: list[list[Tensor]] = []
    for w, r, *o in chunks(clean, robust, *([] if origin is None else [origin])):
        d = r - w
        s = w - o[0] if o else w
        ww = total(w * w)
        parts.append([total(d * d), total(d * s), total(s * s) if o else ww, ww])
    return Moments(*combine(parts, 4))


def residual(
    clean: Float[Tensor, "*shape"],
    robust: Float[Tensor, "*shape"],
    origin: Float[Tensor, "*shape"] | None,
    coefficient: float,
) -> Float32[Tensor, "*shape"]:
    """R = D - coefficient · d_std, computed in f64 and rounded once to f32."""
    out = torch.empty(clean.shape, dtype=torch.float32, device=clean.device)
    flat = out.view(-1)
    start = 0
    for part in _residuals(clean, robust, origin, coefficient):
        flat[start : start + part.numel()] = part
        start += part.numel()
    return out


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
    if coefficient == 0:
        return measured.dd
    square = measured.dd - 2 * coefficient * measured.ds + coefficient**2 * measured.ss
    if square < _CANCELLED * measured.dd:
        rest = _residuals(clean, robust, origin, coefficient)
        [square] = combine([[total(part * part)] for part in rest], 1)
    return square if square > _NOISE * measured.dd else 0.0


def _residuals(
    clean: Float[Tensor, "*shape"],
    robust: Float[Tensor, "*shape"],
    origin: Float[Tensor, "*shape"] | None,
    coefficient: float,
) -> Iterator[Float64[Tensor, " n"]]:
    for w, r, *o in chunks(clean, robust, *([] if origin is None else [origin])):
        d = r - w
        yield d if coefficient == 0 else d - (w - o[0] if o else w) * coefficient

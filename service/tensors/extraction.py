"""What a pair of models gives for one tensor, and how well its packed form keeps it."""

from dataclasses import dataclass
from math import log, sqrt
from typing import Final

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from service.tensors.sums import inner_products

LEAST_VARIANCE: Final = 1e-12
"""Below this a running variance says nothing (a dead channel), and its ratio even less."""
LARGEST_LOG_RATIO: Final = log(1e4)


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Inner products of a signature R and its packed form Q, both over ||W||."""

    rr: float
    qr: float
    qq: float

    def __add__(self, other: "Fidelity") -> "Fidelity":
        return Fidelity(self.rr + other.rr, self.qr + other.qr, self.qq + other.qq)

    def fields(self) -> dict[str, float]:
        """The numbers that a profile gives, by name."""
        return {
            "gain": self.gain,
            "cosine": self.cosine,
            "relative_error": self.relative_error,
            "noise_to_weight": self.noise_to_weight,
        }

    @property
    def gain(self) -> float:
        """<Q, R> / ||R||^2; 1 loses nothing."""
        return self.qr / self.rr if self.rr > 0 else 1.0

    @property
    def cosine(self) -> float:
        """The cosine of Q to R."""
        size = sqrt(self.qq) * sqrt(self.rr)
        return min(1.0, self.qr / size) if size > 0 else 1.0

    @property
    def relative_error(self) -> float:
        """||Q - R|| / ||R||."""
        square = self.rr - 2 * self.qr + self.qq
        return sqrt(max(0.0, square) / self.rr) if self.rr > 0 else 0.0

    @property
    def noise_to_weight(self) -> float:
        """||Q - gain · R|| / ||W||: what the packing adds that is not along R."""
        return sqrt(max(0.0, self.qq - self.gain * self.qr))

    @property
    def predicted_loss(self) -> float:
        """Points of accuracy that packing may cost, judged without data.

        A line through 237 packed signatures of two small networks whose accuracy was measured,
        with R^2 = 0.77; below zero counts as none.
        """
        return max(0.0, 15.3 * abs(1 - self.gain) + 58 * self.noise_to_weight**2 - 0.36)


def compare(
    signature: Float32[Tensor, "*shape"], packed: Float32[Tensor, "*shape"], weight: float
) -> Fidelity:
    """Measure a packed signature against the unpacked one; `weight` is ||W||^2, above zero."""
    sums = inner_products(lambda tile: [(tile, tile), (tile[1], tile[0])], signature, packed)
    rr, qq, qr = (value / weight for value in sums)
    return Fidelity(rr, qr, qq)


def lossless(energy: float, weight: float) -> Fidelity:
    """A signature that is kept as it is; `energy` is ||R||^2, `weight` is ||W||^2, above zero."""
    return Fidelity(energy / weight, energy / weight, energy / weight)


def difference(
    clean: Float[Tensor, "*shape"], robust: Float[Tensor, "*shape"]
) -> Float32[Tensor, "*shape"]:
    """Robust minus clean, in f64, rounded once: how biases, norms and running means move."""
    return (robust.to(torch.float64) - clean.to(torch.float64)).to(torch.float32)


def log_ratio(
    clean: Float[Tensor, "*shape"], robust: Float[Tensor, "*shape"]
) -> tuple[Float32[Tensor, "*shape"], int]:
    """log(robust / clean) of running variances, at most `LARGEST_LOG_RATIO` in size.

    Zero where either is not finite or below `LEAST_VARIANCE`; the second result counts those.
    """
    before, after = clean.to(torch.float64), robust.to(torch.float64)
    sound = (before >= LEAST_VARIANCE) & (after >= LEAST_VARIANCE)
    sound &= before.isfinite() & after.isfinite()
    ratio = torch.where(sound, after, 1.0).log() - torch.where(sound, before, 1.0).log()
    bounded = ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    return bounded.to(torch.float32), int((~sound).sum())

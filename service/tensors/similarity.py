"""How alike two signatures are, and how much of each a sum of several is to hold.

A signature is compared as x: each kernel divided by the norm of its clean weight, so that no kernel
counts for its size. Kernels are *shared* where place and shape are the same. Lengths are those of
the signature before it was packed, since packing at unit gain makes it longer; inner products are
those of the packed form, whose error is nearly uncorrelated from one signature to another.

For a whole catalogue x is kept as a *sketch*: every element is added, with a sign, to one of
`WIDTH` places; place and sign are a hash of where the element stands. Then <S(x), S(y)> is <x, y>
in the mean, with a variance of at most (|x|^2 |y|^2 + <x, y>^2) / WIDTH, and kernels that only one
of two signatures holds fall out by themselves.

The sketch: Charikar, Chen, Farach-Colton 2002; the bound: Weinberger et al. 2009,
arXiv:0902.2206, appendix A. The hash is C. Wellons' lowbias32 with a second seed inside.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

import torch
from jaxtyping import Bool, Float16, Float32, Float64, Int64
from torch import Tensor

from service.tensors.sums import CHUNK, tile_of, tiles, widen

WIDTH: Final = 2048
"""Numbers in a sketch; with their hash part of the catalogue's data, so never changed."""

_MASK: Final = 2**32 - 1
_FACTORS: Final = (0x21F0AAAD, 0x735A2D97)  # below 2^31: no product of 32 bits leaves an int64
_HALF: Final = 2.0**-10
"""What rounding two sketches to f16 adds at most to the product of two unit vectors."""

Sketch = Float64[Tensor, f" {WIDTH}"]
Matrix = Float64[Tensor, "n n"]


# ── exact ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Overlap:
    """Of each pair of tensors: inner product, common non-zeros, those with opposite signs."""

    inner: Matrix
    both: Matrix
    opposed: Matrix


def overlap(tensors: Sequence[Float32[Tensor, "*shape"]]) -> Overlap:
    """Compare tensors of one shape, each with each, in f64."""
    count, device = len(tensors), tensors[0].device
    inner, both, agreed = (
        torch.zeros(count, count, dtype=torch.float64, device=device) for _ in range(3)
    )
    for rows in tiles(*tensors):
        signs = rows.sign()
        inner += rows @ rows.T
        both += signs.abs() @ signs.abs().T
        agreed += signs @ signs.T
    return Overlap((inner + inner.T) / 2, both, (both - agreed) / 2)


# ── the catalogue ────────────────────────────────────────────────────────────────────────────


def key_of(place: str, shape: Sequence[int]) -> int:
    """A signed 64-bit number that stands for a kernel's place and shape."""
    return int.from_bytes(_hashed(place, shape, "key")[:8], "little", signed=True)


def add_to_sketch(
    sketch: Sketch, values: Float32[Tensor, "*shape"], place: str, weight: float
) -> None:
    """Add one kernel, divided by `weight`, to a sketch."""
    shape, flat = tuple(values.shape), values.reshape(-1)
    step = tile_of(flat.device)
    for chunk in range(0, flat.numel(), CHUNK):
        seeds = _hashed(place, shape, str(chunk // CHUNK))
        first, second = (int.from_bytes(seeds[at : at + 4], "little") for at in (0, 4))
        end = min(chunk + CHUNK, flat.numel())
        for start in range(chunk, end, step):
            part = widen(flat[start : min(start + step, end)]) / weight
            counts = torch.arange(start - chunk, start - chunk + len(part), device=part.device)
            hashed = _mix(counts, first, second)
            signed = torch.where(hashed >= 2**31, -part, part)
            sketch += torch.bincount(hashed & (WIDTH - 1), weights=signed, minlength=WIDTH)


def _hashed(place: str, shape: Sequence[int], what: str) -> bytes:
    return hashlib.sha256(f"{place}\n{'x'.join(map(str, shape))}\n{what}".encode()).digest()


def _mix(counts: Int64[Tensor, " n"], first: int, second: int) -> Int64[Tensor, " n"]:
    """32 bits that look random, of numbers below 2^32."""
    mixed = counts ^ first
    mixed = ((mixed ^ (mixed >> 16)) * _FACTORS[0] + second) & _MASK
    mixed = ((mixed ^ (mixed >> 15)) * _FACTORS[1]) & _MASK
    return mixed ^ (mixed >> 15)


@dataclass(frozen=True)
class Measured:
    """One signature as the catalogue keeps it.

    `energies` are |R|^2 / |W|^2 of the kernels `keys`, which are sorted; `sketch` is of unit
    length but for its rounding, `length` that of the packed x.
    """

    keys: Int64[Tensor, " kernels"]
    energies: Float64[Tensor, " kernels"]
    sketch: Float16[Tensor, f" {WIDTH}"]
    length: float


@dataclass(frozen=True)
class Catalogue:
    """Many signatures, the kernels of all one after the other; `counts` says how many each has."""

    keys: Int64[Tensor, " kernels"]
    energies: Float64[Tensor, " kernels"]
    counts: Int64[Tensor, " n"]
    sketches: Float32[Tensor, f"n {WIDTH}"]
    lengths: Float64[Tensor, " n"]


@dataclass(frozen=True)
class Estimate:
    """How like each signature of a catalogue is to one; all zero where nothing is shared.

    `cosines` over shared kernels, in [-1, 1]; `errors` bounds one standard deviation of them;
    `own` and `other` say which part of the energy of either side is shared.
    """

    cosines: Float64[Tensor, " n"]
    errors: Float64[Tensor, " n"]
    own: Float64[Tensor, " n"]
    other: Float64[Tensor, " n"]


def estimates(several: Sequence[Measured], catalogue: Catalogue) -> Iterator[Estimate]:
    """Estimate the cosines of several signatures to each of a catalogue, from the sketches."""
    count = len(catalogue.counts)
    owners = torch.repeat_interleave(torch.arange(count), catalogue.counts)
    whole = torch.zeros(count, dtype=torch.float64).index_add(0, owners, catalogue.energies)
    sketches = torch.stack([one.sketch.to(torch.float32) for one in several], dim=1)
    products = (catalogue.sketches @ sketches).to(torch.float64)
    for number, one in enumerate(several):
        own, other = _shared(one, catalogue, owners)
        common = (own * other).sqrt()
        some = common > 0
        stretch = torch.where(some, one.length * catalogue.lengths / common, 0.0)
        raw = products[:, number] * stretch
        yield Estimate(
            raw.clamp(-1.0, 1.0),
            ((stretch.square() + raw.square()) / WIDTH).sqrt() + _HALF * stretch,
            torch.where(some, own / one.energies.sum(), 0.0),
            torch.where(some, other / torch.where(some, whole, 1.0), 0.0),
        )


def _shared(
    one: Measured, catalogue: Catalogue, owners: Int64[Tensor, " kernels"]
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """The energies that either side has in shared kernels."""
    count = len(catalogue.counts)
    own, other = (torch.zeros(count, dtype=torch.float64) for _ in range(2))
    if not len(one.keys):
        return own, other
    at = torch.searchsorted(one.keys, catalogue.keys).clamp(max=len(one.keys) - 1)
    same: Bool[Tensor, " kernels"] = one.keys[at] == catalogue.keys
    own.index_add_(0, owners[same], one.energies[at[same]])
    other.index_add_(0, owners[same], catalogue.energies[same])
    return own, other


# ── composition ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Balance:
    """How scales are balanced: `solve` times those wanted; None where they cannot be.

    `condition` is that of the Gram matrix once its diagonal is scaled to one, so that it tells how
    alike the signatures are and not that one is stronger than another.
    """

    condition: float
    solve: Matrix | None


def balance(gram: Matrix) -> Balance:
    """Solve G a = diag(G) s for any s: then the sum projects on each signature as if alone."""
    sizes = gram.diagonal().sqrt()
    if not bool((sizes > 0).all() & gram.isfinite().all()):
        return Balance(inf, None)
    cosines = gram / sizes[:, None] / sizes[None, :]
    values = torch.linalg.eigvalsh(cosines)
    if float(values[0]) <= 0:
        return Balance(inf, None)
    solve = torch.linalg.solve(cosines, torch.diag(sizes)) / sizes[:, None]
    return Balance(float(values[-1] / values[0]), solve)

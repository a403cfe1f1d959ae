"""Compare signatures: each with each in full, or one with a whole catalogue by its sketches."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import isfinite, prod, sqrt
from typing import Any, Final

import torch
from torch import Tensor

from service import errors
from service.compute.sources import PatchSource, decode
from service.layout.codecs import Kind
from service.layout.patchfile import PatchFile, SignatureTensor
from service.names import TensorAddress
from service.tensors import similarity
from service.tensors.similarity import Measured
from service.tensors.sums import inner_products

LAYERED: Final = 16
"""The most signatures that are told about kernel by kernel; of more only the totals."""
_BLOCK_BYTES: Final = 2**30
"""How many bytes of one kernel, of all signatures together, are in memory at a time."""

Slot = tuple[str, tuple[int, ...]]
"""Where a kernel lies in a model, and its shape."""
Told = Callable[[float], None]


def kernels(patch: PatchFile) -> dict[Slot, SignatureTensor]:
    """The kernels of a signature that can be compared; what rides beside them cannot.

    A place is folder and name: the files of a folder are shards, or a single file of any name. A
    folder that repeats a name holds several models, which only the whole path tells apart.
    """
    found = [
        tensor
        for tensor in patch.tensors
        if tensor.kind is Kind.ADDITIVE
        and tensor.norm is not None
        and tensor.weight_norm
        and tensor.numel
    ]
    addresses = [TensorAddress(each.path.rpartition("/")[0], each.name) for each in found]
    named = Counter(addresses)
    return {
        (str(tensor.address if named[address] > 1 else address), tensor.shape): tensor
        for address, tensor in zip(addresses, found, strict=True)
    }


@dataclass(frozen=True, slots=True)
class _Norms:
    """Lengths of a kernel: of its signature before packing, and of its clean weight."""

    signature: float
    weight: float

    @classmethod
    def of(cls, tensor: SignatureTensor) -> "_Norms":
        return cls(tensor.norm or 0.0, tensor.weight_norm or 1.0)

    @property
    def energy(self) -> float:
        ratio = self.signature / self.weight
        return ratio * ratio  # `** 2` raises where the product is infinite


# ── one signature, for the catalogue ─────────────────────────────────────────────────────────


def measure(source: PatchSource, device: torch.device) -> Measured:
    """Decode a signature once and sketch it; raises `NotAPatchFile`."""
    sketch = torch.zeros(similarity.WIDTH, dtype=torch.float64, device=device)
    energies: dict[int, float] = {}
    square = 0.0
    for (place, shape), tensor in kernels(source.patch).items():
        norms, decoded = _Norms.of(tensor), decode(source, tensor, device)
        energies[similarity.key_of(place, shape)] = norms.energy
        packed = sqrt(sum(inner_products(lambda q: [(q, q)], decoded))) / norms.weight
        square += packed * packed
        similarity.add_to_sketch(sketch, decoded, place, norms.weight)
    length = sqrt(square)
    if not isfinite(length + sum(energies.values())):
        raise errors.NotAPatchFile("its values or norms are out of all proportion")
    keys = sorted(energies)
    return Measured(
        torch.tensor(keys, dtype=torch.int64),
        torch.tensor([energies[key] for key in keys], dtype=torch.float64),
        (sketch / (length or 1.0)).cpu().to(torch.float16),
        length,
    )


def cosines(
    one: PatchSource, others: Sequence[PatchSource], device: torch.device
) -> list[float | None]:
    """The cosine of one signature to each of others over shared kernels; None where none is."""
    theirs = [kernels(other.patch) for other in others]
    products, own, other = ([0.0] * len(others) for _ in range(3))
    for slot, tensor in kernels(one.patch).items():
        holders = [number for number, found in enumerate(theirs) if slot in found]
        if not holders:
            continue
        norms, decoded = _Norms.of(tensor), decode(one, tensor, device)
        for number in holders:
            that = theirs[number][slot]
            lengths, held = _Norms.of(that), decode(others[number], that, device)
            (inner,) = inner_products(lambda tile: [(tile[0], tile[1])], decoded, held)
            products[number] += inner / norms.weight / lengths.weight
            own[number] += norms.energy
            other[number] += lengths.energy
    return [_cosine(*each) for each in zip(products, own, other, strict=True)]


def _cosine(product: float, own: float, other: float) -> float | None:
    size = sqrt(own) * sqrt(other)
    return min(1.0, max(-1.0, product / size)) if size > 0 else None


# ── a set of signatures, each with each ──────────────────────────────────────────────────────


def compare(sources: Sequence[PatchSource], device: torch.device, told: Told) -> dict[str, Any]:
    """Compare each with each; the answer is JSON, its numbers in the order of `sources`.

    `gram` is G of a balanced recipe, one W a kernel: the root mean square over those that hold it.
    `cosines` are over what either two share, each signature over its own W. `shared[i][j]` is the
    part of i's energy in kernels that j holds; `conflict` the share of opposite signs among common
    non-zero elements, None where there are none. `balance` holds `condition` and `solve`, both None
    where G cannot be solved.
    """
    found = [kernels(source.patch) for source in sources]
    slots = list(dict.fromkeys(slot for each in found for slot in each))
    sums = _Sums(len(sources))
    layers = []
    for done, slot in enumerate(slots):
        members = [number for number, each in enumerate(found) if slot in each]
        holders = [(sources[number], found[number][slot]) for number in members]
        layer = _Layer.of(slot, members, holders, device)
        sums.add(layer)
        layers.append(layer.json())
        told((done + 1) / len(slots))
    return sums.json() | {"layers": layers if len(sources) <= LAYERED else []}


@dataclass(frozen=True)
class _Layer:
    """One kernel of all signatures that hold it, `members` by number."""

    slot: Slot
    members: list[int]
    norms: list[_Norms]
    overlap: similarity.Overlap

    @classmethod
    def of(
        cls,
        slot: Slot,
        members: list[int],
        holders: Sequence[tuple[PatchSource, SignatureTensor]],
        device: torch.device,
    ) -> "_Layer":
        norms = [_Norms.of(tensor) for _, tensor in holders]
        blocks = list(_blocks(len(holders), 4 * prod(slot[1])))
        parts = [torch.zeros(len(holders), len(holders), dtype=torch.float64) for _ in range(3)]
        for first, second in combinations_with_replacement(blocks, 2):
            if first is second and len(blocks) > 1:
                continue  # each block is beside another one anyway
            at = list(dict.fromkeys([*first, *second]))
            some = similarity.overlap([_decoded(holders[number], device) for number in at])
            where = torch.tensor(at)
            for part, new in zip(parts, (some.inner, some.both, some.opposed), strict=True):
                part[where[:, None], where[None, :]] = new.cpu()
        return cls(slot, members, norms, similarity.Overlap(*parts))

    @property
    def gram(self) -> Tensor:
        """Inner products over W^2; on the diagonal of the unpacked signature."""
        square = sum(norms.weight * norms.weight for norms in self.norms) / len(self.norms)
        gram = self.overlap.inner / square
        lengths = torch.tensor([norms.signature for norms in self.norms], dtype=torch.float64)
        return gram.diagonal_scatter(lengths * lengths / square)

    def json(self) -> dict[str, Any]:
        return {
            "tensor": self.slot[0],
            "shape": list(self.slot[1]),
            "patches": self.members,
            "gram": self.gram.tolist(),
            "conflict": _conflict(self.overlap.opposed, self.overlap.both),
        }


def _conflict(opposed: Tensor, both: Tensor) -> list[list[float | None]]:
    """The share of opposite signs; None where two have no element in common."""
    return [
        [signs / count if count else None for signs, count in zip(*rows, strict=True)]
        for rows in zip(opposed.tolist(), both.tolist(), strict=True)
    ]


def _decoded(holder: tuple[PatchSource, SignatureTensor], device: torch.device) -> Tensor:
    source, tensor = holder
    return decode(source, tensor, device)


def _blocks(count: int, size_bytes: int) -> Iterator[range]:
    """Parts of `count` signatures of which any two fit into memory together."""
    step = max(1, _BLOCK_BYTES // (2 * max(1, size_bytes)))
    if count <= 2 * step:
        step = count
    for start in range(0, count, step):
        yield range(start, min(start + step, count))


class _Sums:
    """What the kernels of all signatures add up to."""

    def __init__(self, count: int) -> None:
        self._gram, self._products, self._energies, self._both, self._opposed = (
            torch.zeros(count, count, dtype=torch.float64) for _ in range(5)
        )

    def add(self, layer: _Layer) -> None:
        at = torch.tensor(layer.members)
        where = at[:, None], at[None, :]
        weights = torch.tensor([norms.weight for norms in layer.norms], dtype=torch.float64)
        energies = torch.tensor([norms.energy for norms in layer.norms], dtype=torch.float64)
        self._gram[where] += layer.gram
        self._products[where] += layer.overlap.inner / weights[:, None] / weights[None, :]
        self._both[where] += layer.overlap.both
        self._opposed[where] += layer.overlap.opposed
        self._energies[where] += energies[:, None].expand(len(at), len(at))

    def json(self) -> dict[str, Any]:
        if not bool((self._gram.isfinite() & self._products.isfinite()).all()):
            raise errors.NotAPatchFile("values or norms of one of them are out of all proportion")
        whole = self._energies.diagonal()[:, None]
        sizes = self._energies.sqrt() * self._energies.T.sqrt()
        cosines = torch.where(sizes > 0, self._products / sizes, 0.0).clamp(-1.0, 1.0)
        balanced = similarity.balance(self._gram)
        return {
            "gram": self._gram.tolist(),
            "cosines": cosines.diagonal_scatter((whole[:, 0] > 0).to(torch.float64)).tolist(),
            "conflict": _conflict(self._opposed, self._both),
            "shared": torch.where(whole > 0, self._energies / whole, 0.0).tolist(),
            "balance": {
                "condition": balanced.condition if isfinite(balanced.condition) else None,
                "solve": balanced.solve.tolist() if balanced.solve is not None else None,
            },
        }

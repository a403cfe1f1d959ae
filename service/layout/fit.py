"""Whether signatures fit a base, and which of its tensors they touch; headers alone, no weights.

A tensor's address is (file path, name). A signature's address is looked up on a base exactly, and
else by its name alone, where that name is unique on both sides: a single file and a sharded set of
the same weights name their tensors alike but lay them in other files.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from service.layout.codecs import Kind
from service.layout.header import Header, TensorEntry
from service.names import TensorAddress

PATCHABLE: Final = frozenset({"F64", "F32", "F16", "BF16"})
"""The dtypes that the numeric contract covers; all others are never patched."""


class Part(Protocol):
    """What must be known of a tensor of a signature."""

    @property
    def path(self) -> str:
        """The weight file that it was extracted from."""

    @property
    def name(self) -> str:
        """Its name in there."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its extents."""

    @property
    def kind(self) -> Kind:
        """How it moves."""


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor of a signature without its bytes, as the registry records it."""

    path: str
    name: str
    shape: tuple[int, ...]
    kind: Kind

    @classmethod
    def of(cls, part: Part) -> "Place":
        """What must be known of `part`."""
        return cls(part.path, part.name, part.shape, part.kind)

    @classmethod
    def from_json(cls, row: Sequence[Any]) -> "Place":
        """Read what `to_json` wrote."""
        path, name, shape, kind = row
        return cls(path, name, tuple(shape), Kind(kind))

    def to_json(self) -> list[Any]:
        """Path, name, shape, kind."""
        return [self.path, self.name, list(self.shape), str(self.kind)]


Base = Mapping[str, Header]
"""The weight files of a model version: path → header."""


def resolve(base: Base, parts: Iterable[Part]) -> dict[TensorAddress, TensorAddress]:
    """Where each tensor of a signature lies on `base`; those that it lacks are left out."""
    addresses = [TensorAddress(part.path, part.name) for part in parts]
    asked = Counter(address.name for address in addresses)
    there = Counter(name for header in base.values() for name in header.by_name)
    holder = {name: path for path, header in base.items() for name in header.by_name}
    found: dict[TensorAddress, TensorAddress] = {}
    for address in addresses:
        if address.path in base and address.name in base[address.path]:
            found[address] = address
        elif asked[address.name] == 1 and there[address.name] == 1:
            found[address] = TensorAddress(holder[address.name], address.name)
    return found


def check(base: Base, parts: Sequence[Part]) -> list[str]:
    """The reasons why a signature does not fit `base`, one a tensor; none where it fits."""
    found = resolve(base, parts)
    reasons = []
    for part in parts:
        address = TensorAddress(part.path, part.name)
        where = found.get(address)
        entry = base[where.path].entry(where.name) if where else None
        if reason := _misfit(part, entry):
            reasons.append(f"tensor {str(address)!r} {reason}")
    return reasons


def _misfit(part: Part, entry: TensorEntry | None) -> str:
    if entry is None:
        return "is not in the base"
    if entry.shape != tuple(part.shape):
        return f"is {_extents(entry.shape)} in the base, {_extents(part.shape)} in the patch"
    if entry.dtype not in PATCHABLE:
        return f"is of {entry.dtype}, which is never patched"
    return ""


def mixed(base: Base, patches: Iterable[Sequence[Part]]) -> list[str]:
    """The reasons why signatures cannot be combined: a tensor moves in one way only."""
    kinds: dict[TensorAddress, set[Kind]] = {}
    for parts in patches:
        found = resolve(base, parts)
        for part in parts:
            where = found.get(TensorAddress(part.path, part.name))
            if where:
                kinds.setdefault(where, set()).add(part.kind)
    return [
        f"tensor {str(where)!r} would move both by a sum and by a ratio"
        for where, ways in kinds.items()
        if len(ways) > 1
    ]


def touched(base: Base, patches: Iterable[Sequence[Part]]) -> dict[str, list[str]]:
    """The tensors that an overlay holds: path → names in file order; untouched files are left out.

    `patches` are those of the canonical recipe, so their scales are not zero.
    """
    wanted = {where for parts in patches for where in resolve(base, parts).values()}
    listed = {
        path: [name for name in header.names if TensorAddress(path, name) in wanted]
        for path, header in base.items()
    }
    return {path: names for path, names in listed.items() if names}


# ── what an index can compare ────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Needs:
    """What a signature must find on a base, as keys: all of one set, or all of the other.

    `by_name` is None where the signature repeats a name: then only addresses will do.
    """

    by_address: frozenset[int]
    by_name: frozenset[int] | None


def needs(parts: Sequence[Part]) -> Needs:
    """The keys of a signature's tensors."""
    by_address = frozenset(_key(part.name, part.shape, part.path) for part in parts)
    unique = len({part.name for part in parts}) == len(parts)
    by_name = frozenset(_key(part.name, part.shape) for part in parts) if unique else None
    return Needs(by_address, by_name)


def offers(base: Base) -> frozenset[int]:
    """The keys that a base has for signatures: patchable tensors, by name where that is unique.

    A signature whose `by_address` or `by_name` lies in here passes `check`. Only one that needs
    both ways at once passes `check` and is not found: a base would have to repeat some of its
    names, and hold others in other files than the model that it was extracted from.
    """
    there = Counter(name for header in base.values() for name in header.by_name)
    found = set()
    for path, header in base.items():
        for tensor in header.tensors:
            if tensor.dtype in PATCHABLE:
                found.add(_key(tensor.name, tensor.shape, path))
                if there[tensor.name] == 1:
                    found.add(_key(tensor.name, tensor.shape))
    return frozenset(found)


def _key(name: str, shape: Sequence[int], path: str = "") -> int:
    """A signed 64-bit number, as Postgres keeps them; equal keys mean equal tensors but for luck.

    A recipe is checked by `check` all the same.
    """
    text = "\0".join((path, name, *map(str, shape)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


def _extents(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a single number"

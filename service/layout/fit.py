"""Whether signatures fit a base, and which of its tensors they touch; headers alone, no weights.

A tensor's address is (file path, name). A signature's address is looked up on a base exactly, and
else by its name alone, where that name is unique on both sides: a single file and a sharded set of
the same weights name their tensors alike but lay them in other files.
"""

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


def _extents(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a single number"

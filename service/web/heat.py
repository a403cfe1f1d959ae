"""Heat maps: how patches of a set meet, each with each, as shaded cells that hold their number."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from service.db.tables.patches import PatchVersion
from service.db.tables.similarity import Neighbour
from service.schemas.similarity import PairInterference, SetView

SHADES: Final = 10
"""Steps from nothing to full shade; the style sheet has a class for each, as pages have no style
of their own."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cosine with what an estimate may be off by; None where nothing is known."""

    cosine: float | None
    error: float = 0.0
    own: bool = False
    """Whether it is a patch with itself."""

    @property
    def shade(self) -> str:
        """The class of its shade: `with-7` or `against-3`."""
        if self.cosine is None or self.own:
            return "own" if self.own else "unknown"
        side = "with" if self.cosine >= 0 else "against"
        return f"{side}-{round(min(1.0, abs(self.cosine)) * SHADES)}"


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Cosines of a set, in the order of `names`."""

    names: list[str]
    """References of patch versions."""
    rows: list[list[Cell]]

    @property
    def is_exact(self) -> bool:
        """Whether no cell is an estimate or unknown."""
        return all(cell.cosine is not None and not cell.error for row in self.rows for cell in row)


def of_set(found: SetView) -> HeatMap:
    """What an exact comparison found."""
    return HeatMap(
        found.patches,
        [
            [Cell(cosine, own=row == column) for column, cosine in enumerate(cosines)]
            for row, cosines in enumerate(found.cosines)
        ],
    )


def of_index(
    versions: Sequence[PatchVersion], known: Mapping[tuple[int, int], Neighbour]
) -> HeatMap:
    """What the index of neighbours knows of a set; it keeps but the surest of each version."""

    def cell(one: PatchVersion, other: PatchVersion) -> Cell:
        if one is other:
            return Cell(1.0, own=True)
        found = known.get((one.id, other.id))
        return Cell(None) if found is None else Cell(found.cosine, found.error)

    names = [version.reference for version in versions]
    return HeatMap(names, [[cell(one, other) for other in versions] for one in versions])


def of_pairs(names: list[str], pairs: Iterable[PairInterference]) -> HeatMap:
    """How the patches of a recipe meet, the signs of their scales included."""
    met = {(pair.first, pair.second): pair.cosine for pair in pairs}

    def cell(one: str, other: str) -> Cell:
        if one == other:
            return Cell(1.0, own=True)
        return Cell(met.get((one, other), met.get((other, one))))

    return HeatMap(names, [[cell(one, other) for other in names] for one in names])

"""How the patches of a recipe go together: how they meet, and scales that balance them.

A balanced recipe is a plain one: the scales are solved for once and written into it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import combinations
from math import sqrt
from typing import Any, Final

from sqlalchemy.orm import Session

from service import errors
from service.names import SCALE_PLACES
from service.registry import comparisons, recipes
from service.registry.recipes import Fit, Part, Resolved
from service.schemas.similarity import (
    CompositionView,
    Explained,
    LayerGram,
    LayerInterference,
    PairInterference,
)

MAX_CONDITION: Final = 100.0
MAX_STRETCH: Final = 2.0
"""Where a balance would take more than so many times what was asked for, there is none."""
_ROUNDS: Final = 2000
_SETTLED: Final = 1e-7
_STEP: Final = Decimal(1).scaleb(-SCALE_PLACES)


def compose(
    session: Session, resolved: Resolved, *, require: Fit, balanced: bool, interference: bool
) -> tuple[Resolved, CompositionView] | None:
    """The recipe, balanced if that is asked for, and how its patches go together.

    None where its patches were not compared yet: see `comparisons`. Raises `CannotBalance`.
    """
    if not resolved.parts:
        return resolved, CompositionView(patches=[])
    versions = [part.version for part in resolved.parts]
    known = comparisons.find(session, versions)
    if known is None:
        return None
    scales = [part.scale for part in resolved.parts]
    composed, explained = resolved, None
    if balanced:
        scales = _solved(resolved.parts, known)
        composed = _rescaled(session, resolved, scales, require)
        explained = _explained(resolved, composed, scales, known)
    pairs = combinations(range(len(versions)), 2)
    met = [_pair(*pair, resolved.parts, scales, known) for pair in pairs] if interference else None
    names = [version.reference for version in versions]
    return composed, CompositionView(patches=names, balance=explained, interference=met)


def warnings(composed: Resolved, view: CompositionView | None) -> list[str]:
    """What is worth a second look in a recipe, balanced or not."""
    found = recipes.warnings(composed)
    if view is None or view.balance is None:
        return found
    scales = zip(view.patches, view.balance.wanted, view.balance.solved, strict=True)
    dropped = [
        f"patch {name} is left out: the others hold all of it that was wanted"
        for name, wanted, solved in scales
        if wanted and not solved
    ]
    return [said for said in found if said != recipes.PLAIN_SUM] + dropped


# ── balance ──────────────────────────────────────────────────────────────────────────────────


def _solved(parts: Sequence[Part], known: Mapping[str, Any]) -> list[Decimal]:
    """The scales that balance those of `parts`; raises `CannotBalance` naming the pair."""
    condition, solve = known["balance"]["condition"], known["balance"]["solve"]
    if condition is None or solve is None or condition > MAX_CONDITION:
        told = "without bound" if condition is None else f"{condition:.0f}"
        one, other = _closest_pair(known["cosines"])
        reason = (
            f"their cosine is {known['cosines'][one][other]:+.3f} and the condition number {told}, "
            f"over {MAX_CONDITION:.0f}"
        )
        raise _refused(parts, one, other, reason)
    wanted = [float(part.scale) for part in parts]
    for number, row in enumerate(solve):
        scale = sum(weight * s for weight, s in zip(row, wanted, strict=True))
        if abs(scale) > MAX_STRETCH * abs(wanted[number]):
            name = parts[number].version.reference
            reason = (
                f"{name} would be scaled by {scale:.4g} in place of {wanted[number]:g}, over "
                f"{MAX_STRETCH:g} times as much"
            )
            raise _refused(parts, *_closest_to(number, known["gram"], wanted), reason)
    return [Decimal(repr(scale)).quantize(_STEP) for scale in _within(known["gram"], wanted)]


def _within(gram: Sequence[Sequence[float]], wanted: Sequence[float]) -> list[float]:
    """Of all scales from 0 to those wanted, the nearest, by G, to those that solve G a = diag(G) s.

    What would be stretched stays as wanted, and the others are solved for beside it: a signature
    that others point away from does not get better by more of it. Minimizes a G a - 2 a diag(G) s,
    one scale after the other, which converges since G is positive definite.
    """
    scales = list(wanted)
    for _ in range(_ROUNDS):
        moved = 0.0
        for number, row in enumerate(gram):
            others = sum(g * a for g, a in zip(row, scales, strict=True))
            others -= row[number] * scales[number]
            least, most = sorted((0.0, wanted[number]))
            scale = min(max(wanted[number] - others / row[number], least), most)
            moved = max(moved, abs(scale - scales[number]))
            scales[number] = scale
        if moved < _SETTLED:
            break
    return scales


def _refused(parts: Sequence[Part], one: int, other: int, reason: str) -> errors.CannotBalance:
    first, second = sorted((one, other))
    return errors.CannotBalance(
        parts[first].version.reference, parts[second].version.reference, reason
    )


def _closest_pair(cosines: list[list[float]]) -> tuple[int, int]:
    pairs = list(combinations(range(len(cosines)), 2)) or [(0, 0)]
    return max(pairs, key=lambda pair: abs(cosines[pair[0]][pair[1]]))


def _closest_to(number: int, gram: list[list[float]], wanted: Sequence[float]) -> tuple[int, int]:
    """The patch, and the one that takes most of its place."""
    others = [other for other in range(len(gram)) if other != number] or [number]
    return number, max(others, key=lambda other: abs(gram[number][other] * wanted[other]))


def _rescaled(
    session: Session, resolved: Resolved, scales: Sequence[Decimal], require: Fit
) -> Resolved:
    pairs = zip(resolved.parts, scales, strict=True)
    parts = tuple(replace(part, scale=scale) for part, scale in pairs)
    return recipes.resolve(session, recipes.pinned(replace(resolved, parts=parts)), require=require)


def _explained(
    resolved: Resolved, composed: Resolved, scales: list[Decimal], known: Mapping[str, Any]
) -> Explained:
    wanted = [part.scale for part in resolved.parts]
    return Explained(
        wanted=wanted,
        solved=scales,
        reached=_reached(known["gram"], wanted, scales),
        condition=known["balance"]["condition"],
        gram=known["gram"],
        layers=[LayerGram.model_validate(layer) for layer in known["layers"]],
        recipe=recipes.pinned(composed),
    )


def _reached(
    gram: Sequence[Sequence[float]], wanted: Sequence[Decimal], scales: Sequence[Decimal]
) -> list[float | None]:
    """How far the sum goes along each signature, of what that one alone would; None at zero."""
    along = [sum(g * float(a) for g, a in zip(row, scales, strict=True)) for row in gram]
    return [
        length / (gram[number][number] * float(scale)) if scale else None
        for number, (length, scale) in enumerate(zip(along, wanted, strict=True))
    ]


# ── interference ─────────────────────────────────────────────────────────────────────────────


def _pair(
    one: int, other: int, parts: Sequence[Part], scales: Sequence[Decimal], known: Mapping[str, Any]
) -> PairInterference:
    against = (scales[one] < 0) != (scales[other] < 0)
    layers = []
    for layer in known["layers"]:
        if one in layer["patches"] and other in layer["patches"]:
            row, column = layer["patches"].index(one), layer["patches"].index(other)
            cosine = _cosine(layer["gram"], row, column)
            conflict = layer["conflict"][row][column]
            layers.append(
                LayerInterference(
                    tensor=layer["tensor"],
                    cosine=_signed(cosine, against=against),
                    conflict=_flipped(conflict, against=against),
                )
            )
    return PairInterference(
        first=parts[one].version.reference,
        second=parts[other].version.reference,
        cosine=_signed(known["cosines"][one][other], against=against),
        conflict=_flipped(known["conflict"][one][other], against=against),
        first_share=known["shared"][one][other],
        second_share=known["shared"][other][one],
        layers=layers,
    )


def _cosine(gram: list[list[float]], row: int, column: int) -> float:
    size = sqrt(gram[row][row]) * sqrt(gram[column][column])
    return min(1.0, max(-1.0, gram[row][column] / size)) if size > 0 else 0.0


def _signed(cosine: float, *, against: bool) -> float:
    return -cosine if against else cosine


def _flipped(conflict: float | None, *, against: bool) -> float | None:
    """A negative scale makes like signs opposite, and opposite ones alike."""
    return 1 - conflict if against and conflict is not None else conflict

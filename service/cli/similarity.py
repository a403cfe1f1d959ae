"""Which patches are alike: neighbours, comparison, identification."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import typer

from service import errors, names
from service.cli.output import Cell
from service.cli.session import Run, command
from service.client.similarity import Similarity
from service.schemas.similarity import (
    CompositionView,
    IdentificationView,
    Identify,
    NeighbourView,
    PairInterference,
    SetView,
)

Balance = Annotated[
    bool, typer.Option("--balance", help="Solve for scales at which patches do not interfere.")
]
_SIGNS: Final = ("any", "positive", "negative")
_COLUMNS: Final[dict[str, Callable[[NeighbourView], Cell]]] = {
    "patch": lambda row: row.reference,
    "cosine": lambda row: cosine_text(row.cosine, row.error),
    "shared": lambda row: f"{min(row.own_share, row.other_share):.0%}",
    "labels": lambda row: " ".join(row.labels),
}


def cosine_text(cosine: float, error: float = 0.0) -> str:
    """A cosine for people, with what an estimate may be off by."""
    return f"{cosine:+.3f}" if error == 0 else f"{cosine:+.2f} ± {2 * error:.2f}"


def add(app: typer.Typer) -> None:
    """Add the commands of this noun."""

    @command(app, "similar")
    def similar(
        run: Run,
        patches: Annotated[
            list[str],
            typer.Argument(metavar="PATCH…", help="One: its neighbours. Several: each with each."),
        ],
        *,
        label: Annotated[str | None, typer.Option(help="Only patches with this label.")] = None,
        sign: Annotated[str, typer.Option(help="any, positive or negative.")] = "any",
        limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    ) -> None:
        """List the patches that a patch is most like, or compare several."""
        if sign not in _SIGNS:
            raise typer.BadParameter(f"--sign is one of {', '.join(_SIGNS)}")
        with run.out.operation_bar("compare signatures") as watch:
            if len(patches) > 1:
                found = run.client.similarity.matrix(patches, watch=watch)
                run.out.result(found, matrix_lines(found))
                return
            name, number = _version(run, patches[0])
            rows = run.client.similarity.neighbours(
                name, number, label=label, sign=sign, watch=watch
            )
        run.out.table(islice(rows, limit), _COLUMNS)

    @command(app, "identify")
    def identify(
        run: Run,
        unknown: Annotated[
            list[str],
            typer.Argument(metavar="FILE | CLEAN ROBUST", help="A patch file, or two models."),
        ],
        *,
        origin: Annotated[str | None, typer.Option(help="The models' common start.")] = None,
    ) -> None:
        """Say which corruption an unknown patch file, or a pair of models, is about."""
        found = _identified(run, unknown, origin)
        run.out.result(found, identification_lines(found))


def balanced(run: Run, recipe: str) -> str:
    """The balanced form of a recipe, told about where somebody reads along."""
    with run.out.operation_bar(f"balance {recipe}") as watch:
        found = run.client.recipes.compose(recipe, balance=True, watch=watch)
    for line in composition_lines(found.composition or CompositionView(patches=[])):
        run.out.note(line)
    for said in found.warnings:
        run.out.note(f"warning: {said}")
    return found.reference


def _version(run: Run, text: str) -> tuple[str, int]:
    """The version that a reference names, without @N the newest that is not withdrawn."""
    reference = names.patch_reference(text)
    number = names.version_number(reference.revision) if reference.revision else None
    name = str(reference.name)
    if number is None:
        living = (each for each in run.client.patches.versions(name) if not each.withdrawn_at)
        number = next((each.number for each in living), None)
    if number is None:
        raise errors.ThingNotFound("version of patch", name)
    return name, number


def _identified(run: Run, unknown: list[str], origin: str | None) -> IdentificationView:
    likeness: Similarity = run.client.similarity
    if len(unknown) == 1:
        file = Path(unknown[0])
        if not file.is_file():
            raise typer.BadParameter(f"{file} is not a file; give a patch file, or two models")
        with run.out.file_bars() as bars, run.out.operation_bar(f"identify {file.name}") as watch:
            return likeness.identify_file(file, progress=bars, watch=watch)
    if len(unknown) != 2:  # noqa: PLR2004
        raise typer.BadParameter("give one patch file, or a clean and a robust model")
    given = {"clean": unknown[0], "robust": unknown[1]}
    pair = Identify.model_validate(given | ({"origin": origin} if origin else {}))
    with run.out.operation_bar(f"identify {pair.robust}") as watch:
        return likeness.identify(pair, watch=watch)


# ── for people ───────────────────────────────────────────────────────────────────────────────


def matrix_lines(found: SetView) -> list[str]:
    """Cosines, each with each."""
    width = max(len(name) for name in found.patches)
    heads = [f"({number})" for number in range(1, len(found.patches) + 1)]
    lines = [" " * (width + 6) + " ".join(f"{head:>6}" for head in heads)]
    for head, name, row in zip(heads, found.patches, found.cosines, strict=True):
        cells = " ".join(cosine_text(cosine) for cosine in row)
        lines.append(f"{head:<5}{name:<{width}} {cells}")
    return lines


def identification_lines(found: IdentificationView) -> list[str]:
    """A verdict and what it rests on."""
    if found.label is None:
        head = "nothing to compare it with"
    else:
        margin = "" if found.margin is None else f", {found.margin:.2f} before {found.second}"
        head = f"{found.label} (confidence {found.confidence:.2f}{margin})"
    lines = [head, *(f"not to be trusted: {reason}" for reason in found.reasons)]
    lines += [
        f"  {cosine_text(row.cosine, row.error):<14} {row.reference}  {' '.join(row.labels)}"
        for row in found.patches
    ]
    return lines


def composition_lines(found: CompositionView) -> list[str]:
    """How the patches of a recipe go together."""
    lines: list[str] = []
    if found.balance is not None:
        own = found.balance
        scales = zip(found.patches, own.wanted, own.solved, own.reached, strict=True)
        lines += [
            f"  {name} times {names.scale_text(solved)} in place of {names.scale_text(wanted)}"
            + ("" if reached is None else f", reaches {reached:.0%}")
            for name, wanted, solved, reached in scales
        ]
        lines.append(
            "balanced, no scale larger than asked for; reaches: of what that patch alone would; "
            f"condition number {own.condition:.2f}"
        )
    for pair in found.interference or ():
        lines.append(f"{pair.first} and {pair.second}: {_met(pair)}")
        lines += [
            f"  {cosine_text(layer.cosine)}  {_conflict(layer.conflict)}  {layer.tensor}"
            for layer in pair.layers
        ]
    return lines


def _met(pair: PairInterference) -> str:
    if not pair.first_share:
        return "no kernel in common"
    return f"cosine {cosine_text(pair.cosine)}, opposite signs {_conflict(pair.conflict)}"


def _conflict(share: float | None) -> str:
    return "   -" if share is None else f"{share:4.0%}"

"""`patchbay local compare` and `identify`: patch files beside each other, with no server."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from service import errors
from service.local import terminal

Patch = Annotated[
    Path, typer.Argument(metavar="FILE", help="A patch file.", exists=True, dir_okay=False)
]
Patches = Annotated[
    list[Path], typer.Argument(metavar="FILE…", help="Patch files.", exists=True, dir_okay=False)
]
Device = Annotated[str, typer.Option(help="cuda:N, cpu or auto.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def add(app: typer.Typer) -> None:
    """Add the commands of this noun."""

    @app.command("compare")
    def compare(files: Patches, *, device: Device = "auto", as_json: AsJson = False) -> None:
        """Compare patch files each with each: cosines over the kernels that both hold."""
        _check_different(files)
        with terminal.bar() as told:
            found = _likeness().compare(files, device=device, told=told).comparison
        value = {"patches": [str(file) for file in files], **found}
        if as_json:
            terminal.result(value, [], as_json=True)
            return
        columns = ["", *(f"({number})" for number in range(1, len(files) + 1))]
        rows = [
            [f"({number}) {file}", *(f"{cosine:+.3f}" for cosine in row)]
            for number, (file, row) in enumerate(zip(files, found["cosines"], strict=True), start=1)
        ]
        terminal.table(columns, rows)

    @app.command("identify")
    def identify(
        unknown: Patch, known: Patches, *, device: Device = "auto", as_json: AsJson = False
    ) -> None:
        """Say which of some patch files an unknown one is most like; file names are labels."""
        _check_different([unknown, *known])
        with terminal.bar() as told:
            found = _likeness().identify(unknown, known, device=device, told=told)
        margin = "" if found.margin is None else f", {found.margin:.2f} before {found.second}"
        head = "nothing to compare it with"
        if found.label is not None:
            head = f"{found.label} (confidence {found.confidence:.2f}{margin})"
        lines = [head, *(f"not to be trusted: {reason}" for reason in found.reasons)]
        lines += [f"  {label.cosine:+.3f}  {label.nearest}" for label in found.labels]
        value = asdict(found) | {"trusted": found.trusted}
        terminal.result(value, lines, as_json=as_json)


def _check_different(files: list[Path]) -> None:
    if len({file.resolve() for file in files}) < len(files):
        raise typer.BadParameter("one of the files is named twice")


def _likeness() -> Any:
    try:
        from service.local import likeness  # noqa: PLC0415  # needs torch
    except ModuleNotFoundError as error:
        raise errors.PartFailed(
            "the local work", "install torch: pip install 'patchbay[torch]'"
        ) from error
    return likeness

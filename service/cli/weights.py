"""Weights: build, pull, and patch what is here already."""

from pathlib import Path
from typing import Annotated

import typer

from service import names
from service.cli import patching, pulling
from service.cli.output import size_text
from service.cli.session import Run, command
from service.cli.similarity import Balance, balanced

Out = Annotated[
    Path | None,
    typer.Option("-o", "--out", help="File; or folder, for all files of the version."),
]
Reference = Annotated[
    str,
    typer.Argument(metavar="REF", help="namespace/model@RECIPE, such as vision/net@main+fog=0.5."),
]
Target = Annotated[
    Path, typer.Argument(metavar="FILE", help="A weight file, or a folder of them.", exists=True)
]
PatchOnly = Annotated[
    bool,
    typer.Option("--patch-only", help="Fetch the patches alone and compute here; needs torch."),
]


def add(app: typer.Typer) -> None:
    """Add the commands of this noun."""

    @command(app, "build")
    def build(run: Run, reference: Reference, *, balance: Balance = False) -> None:
        """Have a recipe built, and wait until it is ready."""
        made = pulling.ready(run, balanced(run, reference) if balance else reference)
        overlay = sum(file.overlay_size_bytes for file in made.files)
        sizes = f"{size_text(overlay)} on {size_text(made.recipe.size_bytes)}"
        run.out.result(made, [f"{made.id}  {made.recipe.reference}  {sizes}"])

    @command(app, "pull")
    def pull(
        run: Run,
        reference: Reference,
        out: Out = None,
        *,
        into: Annotated[
            Path | None,
            typer.Option(
                help="A file that holds the base or a build of it: fetch what differs alone.",
                exists=True,
            ),
        ] = None,
        patch_only: PatchOnly = False,
        patch: Annotated[
            bool, typer.Option("--patch", help="REF names a patch: fetch its file.")
        ] = False,
        balance: Balance = False,
    ) -> None:
        """Fetch the weights of a model or of a recipe on it, or a patch's file."""
        if patch_only and into is None:
            raise typer.BadParameter("--patch-only computes on a base here; name it with --into")
        if patch:
            pulling.pull_patch(run, reference, out)
            return
        names.model_reference(reference)
        reference = balanced(run, reference) if balance else reference
        if into is not None:
            patching.put_on(run, into, reference, out, patch_only=patch_only)
        else:
            pulling.pull_recipe(run, reference, out)

    @command(app, "apply")
    def apply(
        run: Run,
        target: Target,
        reference: Reference,
        out: Out = None,
        *,
        patch_only: PatchOnly = False,
    ) -> None:
        """Patch a file that holds the base or a build of it, in place or into a copy."""
        patching.put_on(run, target, reference, out, patch_only=patch_only)

    @command(app, "undo")
    def undo(run: Run, target: Target) -> None:
        """Take off what was patched in place: the file is the base again, byte for byte."""
        patching.take_off(run, target)

    @command(app, "recover")
    def recover(run: Run, target: Target) -> None:
        """Finish what an interrupted apply or undo left."""
        patching.recover(run, target)

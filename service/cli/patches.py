"""Patches: extract one from a pair of models, publish one made elsewhere."""

from pathlib import Path
from typing import Annotated, Any

import typer

from service import names
from service.cli.models import Card, Labels, License, about
from service.cli.output import size_text
from service.cli.session import Run, command
from service.client.summaries import choice_lines, summary_lines
from service.schemas.operations import OperationView
from service.schemas.patches import (
    Energy,
    First,
    Named,
    PatchVersionView,
    Quality,
    RequestExtraction,
    RequestExtractions,
)


def layers_of(
    energy: float | None, first: int | None, globs: list[str] | None, *, everything: bool
) -> dict[str, Any]:
    """Which kernels the options ask for, as a field of a request; nothing: the default."""
    given = [
        choice
        for choice in (
            Energy(energy=energy) if energy is not None else None,
            First(first=first) if first is not None else None,
            Named(names=globs) if globs else None,
            "all" if everything else None,
        )
        if choice is not None
    ]
    if len(given) > 1:
        raise typer.BadParameter("give one of --energy, --first, --names and --all")
    return {"layers": given[0]} if given else {}


def add(app: typer.Typer) -> None:
    """Add the commands of this noun."""

    @command(app, "extract")
    def extract(
        run: Run,
        clean: Annotated[str, typer.Argument(help="The clean model, namespace/name@REVISION.")],
        robust: Annotated[list[str], typer.Argument(help="The robust model, or several.")],
        *,
        patch: Annotated[
            list[str],
            typer.Option(help="The patch to make, namespace/name; one for each robust model."),
        ],
        origin: Annotated[str | None, typer.Option(help="Their common starting weights.")] = None,
        quality: Annotated[
            str, typer.Option(help="exact, high, standard, small or tiny.")
        ] = "standard",
        energy: Annotated[
            float | None, typer.Option(min=0.0, max=1.0, help="Share of energy to keep.")
        ] = None,
        first: Annotated[
            int | None, typer.Option(min=1, help="The first kernels in forward order.")
        ] = None,
        globs: Annotated[
            list[str] | None, typer.Option("--names", help="Glob of kernel names; repeatable.")
        ] = None,
        everything: Annotated[bool, typer.Option("--all", help="All kernels.")] = False,
        projection: Annotated[str, typer.Option(help="auto or none.")] = "auto",
        forward_order: Annotated[
            Path | None,
            typer.Option(help="A file of tensor names, one a line.", exists=True, dir_okay=False),
        ] = None,
        dry_run: Annotated[
            bool, typer.Option(help="Say what would be kept; publish nothing.")
        ] = False,
        card: Card = None,
        spdx: License = None,
        label: Labels = None,
    ) -> None:
        """Have a worker extract a patch from a clean and a robust model.

        Several robust models are compared with the clean one in one pass: give --patch for each.
        """
        order = forward_order and forward_order.read_text("utf-8").split()
        wanted = _request(
            {"clean": clean, "origin": origin, "quality": quality},
            layers_of(energy, first, globs, everything=everything),
            {"projection": projection, "dry_run": dry_run, "forward_order": order},
        )
        pairs = dict(zip(patch, robust, strict=False))
        if not len(pairs) == len(patch) == len(robust):
            raise typer.BadParameter("give one --patch for each robust model, no patch twice")
        for name in () if dry_run else patch:
            run.client.patches.ensure(name, about(card, spdx, label))
        if len(pairs) == 1:
            request = RequestExtraction(**wanted, robust=robust[0])
            asked = run.client.patches.extract(patch[0], request)
        else:
            asked = run.client.patches.extract_many(RequestExtractions(**wanted, robust=pairs))
        with run.out.operation_bar(f"extract {', '.join(patch)}") as watch:
            ended = run.client.operations.wait(asked.id, watch=watch)
        _report(run, patch, ended)

    @command(app, "publish")
    def publish(
        run: Run,
        patch: Annotated[str, typer.Argument(help="namespace/name.")],
        file: Annotated[
            Path,
            typer.Argument(help="A patch file, *.rws.safetensors.", exists=True, dir_okay=False),
        ],
        *,
        profile: Annotated[
            Path | None, typer.Option(help="Its profile.", exists=True, dir_okay=False)
        ] = None,
        card: Card = None,
        spdx: License = None,
        label: Labels = None,
    ) -> None:
        """Upload a patch file made elsewhere and publish it as the next version."""
        run.client.patches.ensure(patch, about(card, spdx, label))
        with run.out.file_bars() as bars:
            made = run.client.patches.publish(patch, file, profile=profile, progress=bars)
        if isinstance(made, PatchVersionView):
            run.out.result(made, [f"{made.reference}  {size_text(made.size_bytes)}"])
            return
        with run.out.operation_bar(f"check {file.name}") as watch:
            ended = run.client.operations.wait(made.id, watch=watch)
        _report(run, [patch], ended)


def _request(*parts: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for part in parts for name, value in part.items()}
    if given["quality"] not in Quality.__args__:  # type: ignore[attr-defined]
        raise typer.BadParameter(f"--quality is one of {', '.join(Quality.__args__)}")  # type: ignore[attr-defined]
    if given["projection"] not in {"auto", "none"}:
        raise typer.BadParameter("--projection is auto or none")
    return given


def _report(run: Run, asked: list[str], ended: OperationView) -> None:
    made = ended.result or {}
    if "extractions" in made:
        each = {one["patch"].lower(): one for one in made["extractions"]}  # in any order
        told = (_lines(patch, each[patch.lower()]) for patch in asked)
        run.out.result(ended, [line for lines in told for line in lines])
    elif "version" in made:
        found = run.client.patches.version(asked[0], made["version"])
        run.out.result(found, _lines(asked[0], {**made, "summary": found.summary}))
    else:
        run.out.result(ended, _lines(asked[0], made))


def _lines(patch: str, made: dict[str, Any]) -> list[str]:
    """What came of one patch, for people."""
    summary = made["summary"]
    said = [f"  {line}" for line in summary_lines(summary)]
    if "version" in made:
        return [f"{patch}@{made['version']}  {size_text(made['size_bytes'])}", *said]
    choices = [f"  {line}" for line in choice_lines(summary)]
    return [f"{patch}: nothing published (dry run)", *said, *choices]


def patch_in(text: str, namespace: str) -> str:
    """A patch as people write it: `ns/name`, `ns.name`, or `name` of `namespace`."""
    if "/" in text:
        return str(names.patch_name(text))
    full = text.replace(".", "/", 1) if "." in text else f"{namespace}/{text}"
    return str(names.patch_name(full))

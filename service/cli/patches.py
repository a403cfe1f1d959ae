"""Patches: extract one from a pair of models, publish one made elsewhere."""

from pathlib import Path
from typing import Annotated, Any

import typer

from service import names
from service.cli.models import Card, Labels, License, about
from service.cli.output import size_text
from service.cli.session import Run, command
from service.schemas.operations import OperationView
from service.schemas.patches import (
    Energy,
    First,
    Named,
    PatchVersionView,
    Quality,
    RequestExtraction,
)
from service.schemas.wire import EditLine


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
        robust: Annotated[str, typer.Argument(help="The robust model.")],
        *,
        patch: Annotated[str, typer.Option(help="The patch to make, namespace/name.")],
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
    ) -> None:
        """Have a worker extract a patch from a clean and a robust model."""
        order = forward_order and forward_order.read_text("utf-8").split()
        wanted = _request(
            {"clean": clean, "robust": robust, "origin": origin, "quality": quality},
            layers_of(energy, first, globs, everything=everything),
            {"projection": projection, "dry_run": dry_run, "forward_order": order},
        )
        run.client.patches.ensure(patch, EditLine())
        asked = run.client.patches.extract(patch, wanted)
        with run.out.operation_bar(f"extract {patch}") as watch:
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
        _report(run, patch, ended)


def _request(*parts: dict[str, Any]) -> RequestExtraction:
    given = {name: value for part in parts for name, value in part.items()}
    if given["quality"] not in Quality.__args__:  # type: ignore[attr-defined]
        raise typer.BadParameter(f"--quality is one of {', '.join(Quality.__args__)}")  # type: ignore[attr-defined]
    if given["projection"] not in {"auto", "none"}:
        raise typer.BadParameter("--projection is auto or none")
    return RequestExtraction(**given)


def _report(run: Run, patch: str, ended: OperationView) -> None:
    made = ended.result or {}
    warnings = [f"warning: {said}" for said in made.get("summary", {}).get("warnings", [])]
    if "version" not in made:
        summary = made.get("summary", {})
        lines = [f"{name}: {value}" for name, value in summary.items() if name != "warnings"]
        run.out.result(ended, [f"{patch}: nothing published (dry run)", *lines, *warnings])
        return
    version = run.client.patches.version(patch, made["version"])
    size = size_text(version.size_bytes)
    run.out.result(version, [f"{version.reference}  {size}", *warnings])


def patch_in(text: str, namespace: str) -> str:
    """A patch as people write it: `ns/name`, `ns.name`, or `name` of `namespace`."""
    if "/" in text:
        return str(names.patch_name(text))
    full = text.replace(".", "/", 1) if "." in text else f"{namespace}/{text}"
    return str(names.patch_name(full))

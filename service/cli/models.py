"""Models: push files as a version."""

from pathlib import Path
from typing import Annotated

import typer

from service import names
from service.cli.output import size_text
from service.cli.session import Run, command
from service.layout import fileset
from service.schemas.models import ModelVersionView
from service.schemas.wire import EditLine

Card = Annotated[Path | None, typer.Option(help="Markdown file that says what it is.", exists=True)]
License = Annotated[str | None, typer.Option("--license", help="SPDX identifier.")]
Labels = Annotated[list[str] | None, typer.Option("--label", help="May be given several times.")]


def about(card: Path | None, spdx: str | None, labels: list[str] | None) -> EditLine:
    """What the options say of a model or a patch; what is not given stays as it is."""
    said = {
        "card": card.read_text(encoding="utf-8") if card else None,
        "license": spdx,
        "labels": labels or None,
    }
    return EditLine.model_validate({name: v for name, v in said.items() if v is not None})


def add(app: typer.Typer) -> None:
    """Add the commands of this noun."""

    @command(app, "push")
    def push(
        run: Run,
        model: Annotated[str, typer.Argument(help="namespace/name.")],
        files: Annotated[
            list[Path], typer.Argument(help="Files, or one folder with all of them.", exists=True)
        ],
        *,
        card: Card = None,
        spdx: License = None,
        label: Labels = None,
        forward_order: Annotated[
            Path | None,
            typer.Option(help="A file of tensor names, one a line.", exists=True, dir_okay=False),
        ] = None,
    ) -> None:
        """Upload files and publish them as the next version of a model.

        PyTorch checkpoints are converted to safetensors by a worker.
        """
        name = names.model_reference(model)
        if name.revision is not None:
            raise typer.BadParameter("a version gets its number when it is published; drop @…")
        chosen = files_of(files)
        for path in [path for path in chosen if fileset.is_training_state(path)]:
            run.out.note(f"not pushed: {path}, the state of a training")
            del chosen[path]
        fileset.check_paths(chosen)
        order = forward_order.read_text("utf-8").splitlines() if forward_order else None
        run.client.models.ensure(str(name.name), about(card, spdx, label))
        with run.out.file_bars() as bars:
            made = run.client.models.publish(
                str(name.name),
                chosen,
                forward_order=order,
                progress=bars,
            )
        if not isinstance(made, ModelVersionView):
            with run.out.operation_bar(f"convert {name.name}") as watch:
                ended = run.client.operations.wait(made.id, watch=watch)
            number = (ended.result or {})["version"]
            made = run.client.models.version(str(name.name), number)
        run.out.result(made, shown(made))


def shown(made: ModelVersionView) -> list[str]:
    """What people are told of a new version, and of what was converted for it."""
    lines = [f"{made.reference}  {size_text(made.size_bytes)}"]
    if made.conversion is None:
        return lines
    told = made.conversion
    lines += [f"  {path}  from {source.path}" for path, source in told.converted.items()]
    lines += [f"  {tied.name}  is {tied.same_as}, kept once" for tied in told.tied]
    names = [
        left.path if left.name is None else f"{left.name} of {left.path}" for left in told.left_out
    ]
    return lines + [f"  {name}  left out" for name in names]


def files_of(given: list[Path]) -> dict[str, Path]:
    """The files to push by their paths in the version; a folder gives all that lies in it."""
    if len(given) == 1 and given[0].is_dir():
        folder = given[0]
        found = {
            path.relative_to(folder).as_posix(): path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not _is_ours(path.relative_to(folder))
        }
    else:
        found = {path.name: path for path in given}
        if len(found) != len(given):
            raise typer.BadParameter("two of the files have the same name; push their folder")
        if any(path.is_dir() for path in given):
            raise typer.BadParameter("give either files or one folder")
    if not found:
        raise typer.BadParameter("there is no file to push")
    return found


def _is_ours(path: Path) -> bool:
    """Hidden files, and the records of patches in place, are no part of a model."""
    return any(part.startswith(".") or part.endswith(".patchbay") for part in path.parts)

"""Operations: list, show, watch, cancel."""

from typing import Annotated

import typer

from service.cli.session import Run, command
from service.client.problem import OperationProblem
from service.schemas.operations import OperationView, State

app = typer.Typer(help="Long work: list, show, watch, cancel.", no_args_is_help=True)

OperationId = Annotated[str, typer.Argument(metavar="ID")]


@command(app, "ls")
def listed(
    run: Run,
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
) -> None:
    """List operations, newest first."""
    found = run.client.operations.listed(state)
    run.out.table(
        [one for one, _ in zip(found, range(limit), strict=False)],
        {
            "id": lambda one: one.id,
            "kind": lambda one: one.kind,
            "state": lambda one: one.state.value,
            "done": lambda one: f"{one.progress:.0%}",
            "subject": lambda one: one.subject,
            "created": lambda one: f"{one.created_at:%Y-%m-%d %H:%M}",
        },
    )


@command(app, "show")
def show(run: Run, operation: OperationId) -> None:
    """Show one operation."""
    found = run.client.operations.get(operation)
    run.out.result(found, _lines(found))


@command(app, "watch")
def watch(run: Run, operation: OperationId) -> None:
    """Wait for an operation; ends with 1 if it fails."""
    with run.out.operation_bar(operation) as bar:
        ended = run.client.operations.wait(operation, watch=bar)
    run.out.result(ended, _lines(ended))


@command(app, "cancel")
def cancel(run: Run, operation: OperationId) -> None:
    """Ask an operation to end."""
    run.client.operations.cancel(operation)
    try:
        with run.out.operation_bar(operation) as bar:
            ended = run.client.operations.wait(operation, watch=bar)
    except OperationProblem as problem:
        if problem.operation.state is not State.CANCELLED:
            raise
        ended = problem.operation
    run.out.result(ended, _lines(ended))


def _lines(found: OperationView) -> list[str]:
    lines = [
        f"{found.id}  {found.kind}  {found.state.value}  {found.progress:.0%}",
        f"  {found.subject}",
    ]
    if found.message:
        lines.append(f"  {found.message}")
    if found.problem:
        lines.append(f"  {found.problem.get('detail')}")
    return lines

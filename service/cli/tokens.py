"""Tokens: create, list, revoke."""

from typing import Annotated

import typer

from service.cli.session import Run, command
from service.schemas.operations import MintToken, Scope
from service.schemas.wire import Moment

app = typer.Typer(help="Tokens: create, list, revoke.", no_args_is_help=True)


@command(app, "create")
def create(
    run: Run,
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scope: Annotated[list[Scope], typer.Option(help="May be given several times.")],
    namespace: Annotated[
        str | None, typer.Option(help="Glob of the namespaces that it may change.")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, max=3650, help="How long it holds.")] = None,
) -> None:
    """Make a token; it is printed this once."""
    made = run.client.tokens.mint(
        MintToken(name=name, scopes=scope, namespace_pattern=namespace, expires_in_days=days)
    )
    run.out.result(made, [made.token])


@command(app, "ls")
def listed(run: Run) -> None:
    """List the tokens, without their texts."""
    run.out.table(
        run.client.tokens.listed(),
        {
            "id": lambda token: token.id,
            "name": lambda token: token.name,
            "scopes": lambda token: " ".join(token.scopes),
            "namespaces": lambda token: token.namespace_pattern or "all",
            "expires": lambda token: _day(token.expires_at),
            "state": lambda token: "revoked" if token.revoked_at else "valid",
        },
    )


def _day(moment: Moment | None) -> str:
    return f"{moment:%Y-%m-%d}" if moment else "never"


@command(app, "revoke")
def revoke(run: Run, token_id: Annotated[int, typer.Argument(metavar="ID")]) -> None:
    """Make a token worthless at once."""
    run.client.tokens.revoke(token_id)
    run.out.result({"revoked": token_id}, [f"token {token_id} is revoked"])

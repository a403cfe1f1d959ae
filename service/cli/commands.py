"""The user's commands, put together; `manage.py` mounts them and adds serve, worker, migrate."""

import typer

from service.cli import (
    catalogue,
    channels,
    evaluations,
    models,
    operations,
    patches,
    similarity,
    tokens,
    upkeep,
    weights,
)

app = typer.Typer(no_args_is_help=True)

for noun in (models, patches, weights, evaluations, similarity, catalogue, upkeep):
    noun.add(app)
app.add_typer(channels.app, name="channel")
app.add_typer(operations.app, name="ops")
app.add_typer(tokens.app, name="token")

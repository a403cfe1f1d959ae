"""Channels: point, change, revert, look, pull.

Every change is decided on the channel's last move: read just before, or pinned with --if-move.
"""

from decimal import Decimal
from itertools import islice
from typing import Annotated

import typer

from service import names
from service.cli import pulling, weights
from service.cli.catalogue import channel_columns
from service.cli.patches import patch_in
from service.cli.session import Run, command
from service.client.conditions import Seen
from service.client.problem import ServiceProblem
from service.schemas.recipes import MoveView

app = typer.Typer(help="Mutable names of recipes: what a fleet follows.", no_args_is_help=True)

_GONE = (404, 410)

Channel = Annotated[str, typer.Argument(metavar="CHANNEL", help="namespace/name.")]
Patch = Annotated[str, typer.Argument(metavar="PATCH", help="namespace/name, or name here.")]
Scaled = Annotated[str, typer.Argument(metavar="PATCH=SCALE", help="Such as fog=0.5 or fog~2=0.5.")]
IfMove = Annotated[
    int | None, typer.Option("--if-move", min=1, help="Refuse unless this is the last move.")
]


@command(app, "point")
def point(
    run: Run,
    channel: Channel,
    recipe: Annotated[str, typer.Argument(help="Such as ns/model@main+fog=0.5.")],
    if_move: IfMove = None,
) -> None:
    """Point a channel at a recipe; makes the channel if need be."""
    seen = _seen(run, channel, if_move)
    _moved(run, channel, run.client.channels.point(channel, recipe, seen=seen))


@command(app, "add")
def add(run: Run, channel: Channel, patch: Scaled, if_move: IfMove = None) -> None:
    """Add a patch to what a channel points at."""
    name, scale = _scaled(channel, patch)
    seen = _seen(run, channel, if_move)
    _moved(run, channel, run.client.channels.add(channel, name, scale, seen=seen))


@command(app, "rescale")
def rescale(run: Run, channel: Channel, patch: Scaled, if_move: IfMove = None) -> None:
    """Give a patch of a channel another scale; 0 keeps it listed but off."""
    name, scale = _scaled(channel, patch)
    seen = _seen(run, channel, if_move)
    _moved(run, channel, run.client.channels.rescale(channel, name, scale, seen=seen))


@command(app, "drop")
def drop(run: Run, channel: Channel, patch: Patch, if_move: IfMove = None) -> None:
    """Take a patch off a channel."""
    seen = _seen(run, channel, if_move)
    _moved(run, channel, run.client.channels.drop(channel, _patch(channel, patch), seen=seen))


@command(app, "revert")
def revert(
    run: Run,
    channel: Channel,
    to: Annotated[str, typer.Argument(help="The number of a move, or clean.")] = "clean",
    if_move: IfMove = None,
) -> None:
    """Go back to an earlier move, or to the clean base."""
    if to != "clean" and not to.isdecimal():
        raise typer.BadParameter("give the number of a move, or clean")
    seen = _seen(run, channel, if_move)
    move = run.client.channels.revert(channel, "clean" if to == "clean" else int(to), seen=seen)
    _moved(run, channel, move)


@command(app, "rm")
def remove(run: Run, channel: Channel, if_move: IfMove = None) -> None:
    """Delete a channel; its history stays."""
    run.client.channels.delete(channel, seen=_seen(run, channel, if_move))
    run.out.result({"deleted": channel}, [f"channel {channel} is deleted"])


@command(app, "show")
def show(run: Run, channel: Channel) -> None:
    """Show what a channel points at."""
    found = run.client.channels.get(channel)
    row = [f"{name}: {cell(found)}" for name, cell in channel_columns().items()]
    run.out.result(found, [*row, f"recipe: {found.head.recipe_digest}"])


@command(app, "history")
def history(
    run: Run,
    channel: Channel,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
) -> None:
    """List a channel's moves, newest first."""
    run.out.table(
        islice(run.client.channels.moves(channel), limit),
        {
            "move": lambda move: move.number,
            "action": _action,
            "base": lambda move: move.base,
            "patches": _entered,
            "by": lambda move: move.moved_by,
            "at": lambda move: f"{move.moved_at:%Y-%m-%d %H:%M}",
        },
    )


@command(app, "ls")
def listed(
    run: Run, limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100
) -> None:
    """List the channels."""
    run.out.table(islice(run.client.channels.listed(), limit), channel_columns())


@command(app, "pull")
def pull(run: Run, channel: Channel, out: weights.Out = None) -> None:
    """Fetch what a channel points at; what is here already is not fetched again."""
    head = run.client.channels.get(channel).head
    pulling.pull_recipe(run, head.recipe_digest, out)


# ── reading what was typed ───────────────────────────────────────────────────────────────────


def _seen(run: Run, channel: str, if_move: int | None) -> Seen:
    """The move that a change is decided on; "nothing" where there is no such channel yet."""
    if if_move is not None:
        return if_move
    try:
        return run.client.channels.get(channel).move
    except ServiceProblem as problem:
        if problem.status not in _GONE:
            raise
        return "nothing"


def _patch(channel: str, patch: str) -> str:
    return patch_in(patch, names.channel_name(channel).namespace)


def _scaled(channel: str, text: str) -> tuple[str, Decimal]:
    patch, equals, scale = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r} has no scale; write {text}=1")
    name, tilde, version = patch.partition("~")
    return _patch(channel, name) + ("@" if tilde else "") + version, names.parse_scale(scale)


def _moved(run: Run, channel: str, move: MoveView) -> None:
    run.out.result(move, [f"{channel} is at move {move.number}: {move.base} with {_entered(move)}"])


def _action(move: MoveView) -> str:
    return move.action if move.reverted_to is None else f"{move.action} to {move.reverted_to}"


def _entered(move: MoveView) -> str:
    parts = [f"{part.patch}@{part.version}={names.scale_text(part.scale)}" for part in move.entered]
    return " ".join(parts) or "no patch"

"""The catalogue: list things, show one."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any, Final

import typer

from service import errors, names
from service.cli import pulling
from service.cli.output import Cell, size_text
from service.cli.session import Run, command
from service.cli.similarity import Balance, composition_lines
from service.client.client import Client
from service.client.problem import ServiceProblem
from service.client.summaries import summary_lines
from service.schemas.models import ModelVersionView
from service.schemas.patches import PatchVersionView
from service.schemas.recipes import BuildView, ChannelView, RecipeView
from service.schemas.wire import View

OfPatch = Annotated[
    bool, typer.Option("--patch", help="The patch, where a model has the same name.")
]

_NOT_FOUND: Final = 404
_LINE: Final[dict[str, Callable[[Any], Cell]]] = {
    "name": lambda line: line.full_name,
    "versions": lambda line: line.head,
    "license": lambda line: line.license,
    "labels": lambda line: " ".join(line.labels),
    "updated": lambda line: f"{line.updated_at:%Y-%m-%d %H:%M}",
}


_FITTING: Final[dict[str, Callable[[Any], Cell]]] = {
    "reference": lambda row: row.reference,
    "fit": lambda row: row.fit,
}


class Kind(StrEnum):
    """What can be listed."""

    MODELS = "models"
    PATCHES = "patches"
    CHANNELS = "channels"
    BUILDS = "builds"


def channel_columns() -> dict[str, Callable[[ChannelView], Cell]]:
    """A channel as a row."""
    return {
        "name": lambda channel: channel.full_name,
        "move": lambda channel: channel.move,
        "base": lambda channel: channel.head.base,
        "patches": _entered,
        "moved": lambda channel: f"{channel.head.moved_at:%Y-%m-%d %H:%M}",
    }


def _entered(channel: ChannelView) -> str:
    parts = [
        f"{part.patch}@{part.version}={names.scale_text(part.scale)}"
        for part in channel.head.entered
    ]
    return " ".join(parts) or "clean"


def add(app: typer.Typer) -> None:
    """Add the commands of this noun."""

    @command(app, "ls")
    def listed(
        run: Run,
        kind: Annotated[Kind, typer.Argument(help="What to list.")] = Kind.MODELS,
        q: Annotated[str | None, typer.Option("-q", help="Words of names, or labels.")] = None,
        limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    ) -> None:
        """List models, patches, channels or builds."""
        client = run.client
        match kind:
            case Kind.MODELS:
                run.out.table(islice(client.models.listed(q), limit), _LINE)
            case Kind.PATCHES:
                run.out.table(islice(client.patches.listed(q), limit), _LINE)
            case Kind.CHANNELS:
                run.out.table(islice(client.channels.listed(), limit), channel_columns())
            case Kind.BUILDS:
                run.out.table(islice(client.builds.listed(), limit), _build_columns())

    @command(app, "fits")
    def fits(
        run: Run,
        reference: Annotated[
            str, typer.Argument(help="A model, patch, or version of one: namespace/name@3.")
        ],
        *,
        patch: OfPatch = False,
        limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    ) -> None:
        """List the patches that fit a model version, or the models that a patch version fits."""
        found = _bases(run, reference) if patch else _fitting(run, reference)
        run.out.table(islice(found, limit), _FITTING)

    @command(app, "show")
    def show(
        run: Run,
        reference: Annotated[
            str, typer.Argument(help="A model, patch or channel, with @REVISION.")
        ],
        *,
        patch: OfPatch = False,
        balance: Balance = False,
        interference: Annotated[
            bool, typer.Option("--interference", help="Tell how a recipe's patches meet.")
        ] = False,
    ) -> None:
        """Show a model, a patch, a recipe or a channel."""
        if balance or interference:
            with run.out.operation_bar("compare signatures") as watch:
                found = run.client.recipes.compose(
                    reference, balance=balance, interference=interference, watch=watch
                )
            run.out.result(*_recipe(found))
            return
        looks = _patch_looks if patch else _looks
        for look in looks(run.client, reference):
            with _going_on_where_unknown():
                run.out.result(*look())
                return
        raise errors.ThingNotFound("model, patch or channel", reference)


def _fitting(run: Run, reference: str) -> Iterator[View]:
    name, _, revision = reference.partition("@")
    with _going_on_where_unknown():
        yield from run.client.models.patches(name, revision or "main")
        return
    with _going_on_where_unknown():
        yield from _bases(run, reference)
        return
    raise errors.ThingNotFound("model or patch", reference)


def _bases(run: Run, reference: str) -> Iterator[View]:
    name, _, revision = reference.partition("@")
    yield from run.client.patches.bases(name, revision or pulling.newest(run, name))


@contextmanager
def _going_on_where_unknown() -> Iterator[None]:
    try:
        yield
    except ServiceProblem as problem:
        if problem.status != _NOT_FOUND:
            raise


def _build_columns() -> dict[str, Callable[[BuildView], Cell]]:
    return {
        "id": lambda build: build.id[:12],
        "state": lambda build: build.state,
        "recipe": lambda build: build.recipe.reference,
        "overlay": lambda build: size_text(sum(file.overlay_size_bytes for file in build.files)),
        "created": lambda build: f"{build.created_at:%Y-%m-%d %H:%M}",
    }


Found = tuple[Any, Iterable[str]]


def _looks(client: Client, text: str) -> list[Callable[[], Found]]:
    """Where to look for what `text` names, in this order."""
    name, _, revision = text.partition("@")
    if "+" in revision:
        return [lambda: _recipe(client.recipes.resolve(text))]
    if revision:
        looks = [lambda: _model_version(client.models.version(name, revision))]
        if names.version_number(revision) is not None:
            looks += _patch_looks(client, text)
        return looks
    looks = [lambda: _line(client.models.get(name))]
    if "." not in name.partition("/")[2]:
        looks += _patch_looks(client, text)
        looks.append(lambda: _channel(client.channels.get(name)))
    return looks


def _patch_looks(client: Client, text: str) -> list[Callable[[], Found]]:
    name, _, revision = text.partition("@")
    if revision:
        return [lambda: _patch_version(client.patches.version(name, revision))]
    return [lambda: _line(client.patches.get(name))]


def _line(line: Any) -> Found:
    count = f"{line.head} version{'' if line.head == 1 else 's'}"
    lines = [f"{line.full_name}  {count}  {line.license or 'no licence'}"]
    if line.labels:
        lines.append(f"labels: {' '.join(line.labels)}")
    return line, [*lines, *(["", line.card] if line.card else [])]


def _model_version(version: ModelVersionView) -> Found:
    files = [f"  {size_text(file.size_bytes):>10}  {file.path}" for file in version.files]
    withdrawn = [f"withdrawn: {version.withdrawn_reason}"] if version.withdrawn_at else []
    return version, [version.reference, f"weights {version.weights_digest}", *withdrawn, *files]


def _patch_version(version: PatchVersionView) -> Found:
    lineage = {"clean": version.clean, "robust": version.robust, "origin": version.origin}
    made = [f"{role}: {model}" for role, model in lineage.items() if model]
    withdrawn = [f"withdrawn: {version.withdrawn_reason}"] if version.withdrawn_at else []
    head = f"{version.reference}  {size_text(version.size_bytes)}  {version.digest}"
    return version, [head, *withdrawn, *made, *summary_lines(version.summary)]


def _recipe(recipe: RecipeView) -> Found:
    parts = [
        f"  {part.patch}@{part.version} times {names.scale_text(part.scale)}  {part.fit}"
        for part in recipe.patches
    ]
    sizes = f"{size_text(recipe.overlay_bytes)} of {size_text(recipe.size_bytes)} change"
    warned = [f"warning: {said}" for said in recipe.warnings]
    return recipe, [
        recipe.reference,
        str(recipe.digest),
        f"on {recipe.base}",
        *parts,
        sizes,
        *(composition_lines(recipe.composition) if recipe.composition else []),
        *warned,
    ]


def _channel(channel: ChannelView) -> Found:
    row = [f"{name}: {cell(channel)}" for name, cell in channel_columns().items()]
    return channel, [*row, f"recipe: {channel.head.recipe_digest}"]

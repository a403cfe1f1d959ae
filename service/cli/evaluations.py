"""Evaluations: measure a patch with one's own code, publish and list what was measured."""

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from importlib import import_module
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError

from service import errors, names
from service.cli import patching, pulling
from service.cli.output import Cell
from service.cli.session import Run, command
from service.layout.pieces import Change, write_copy
from service.schemas.evaluations import EvaluationView, Result
from service.schemas.patches import PatchVersionView
from service.schemas.recipes import BuildView, RecipeBody, RecipePart

SCALES: Final = "0,0.25,0.5,0.75,1,1.25"

Measure = Callable[[Path], Any]
"""The user's code: given patched weights, a file or a folder, it answers what it measured."""

_COLUMNS: Final[dict[str, Callable[[EvaluationView], Cell]]] = {
    "patch": lambda row: row.patch,
    "base": lambda row: row.base,
    "data set": lambda row: row.data_set,
    "corruption": lambda row: row.corruption,
    "severity": lambda row: row.severity,
    "scale": lambda row: names.scale_text(row.scale),
    "accuracy": lambda row: f"{100 * row.accuracy:.2f} % ± {100 * row.standard_error:.2f}",
    "n": lambda row: row.n,
    "seed": lambda row: row.seed,
}


def add(app: typer.Typer) -> None:
    """Add the commands of this noun."""

    @command(app, "evaluate")
    def evaluate(
        run: Run,
        patch: Annotated[str, typer.Argument(metavar="PATCH", help="namespace/patch@VERSION.")],
        code: Annotated[
            str,
            typer.Argument(
                metavar="CODE", help="FILE.py:FUNCTION or MODULE:FUNCTION; it runs on this machine."
            ),
        ],
        *,
        base: Annotated[str, typer.Option("--on", help="The model to put it on.")],
        data_set: Annotated[str, typer.Option(help="Which images, such as fashion-mnist.")],
        corruption: Annotated[str, typer.Option(help="What was done to them, or clean.")] = "clean",
        severity: Annotated[float | None, typer.Option(help="How much of it.")] = None,
        seed: Annotated[int | None, typer.Option(help="Of the measurement.")] = None,
        scales: Annotated[str, typer.Option(help="Separated by commas.")] = SCALES,
        publish: Annotated[bool, typer.Option(help="Publish the results with the patch.")] = True,
    ) -> None:
        """Measure a patch at several scales with your own Python function, and publish the curve.

        FUNCTION gets the path of the patched weights: a file, or a folder where
        the model has several. It returns {"accuracy": 0.81, "n": 1000}, or a
        list of such, each of which may say data_set, corruption, severity and
        seed for itself.
        """
        about = {"data_set": data_set, "corruption": corruption, "severity": severity, "seed": seed}
        measure = _function(code)
        version = _version(run, patch)
        wanted = [names.parse_scale(text.strip()) for text in scales.split(",")]
        body = [
            RecipeBody(base=base, patches=[RecipePart(patch=version.reference, scale=scale)])
            for scale in wanted
        ]
        with run.out.operation_bar(f"build {len(body)} scales") as watch:
            builds = run.client.builds.sweep(body, watch=watch)
        results: list[Result] = []
        with _base(run, builds[0]) as clean:
            for scale, build in zip(wanted, builds, strict=True):
                with patching.change(run, build, clean) as change, _copy(clean, change) as copy:
                    measured = list(_results(measure(copy), about, scale))
                for result in measured:
                    run.out.note(_line(result))
                results += measured
        if publish:
            on = builds[0].recipe.base
            rows = run.client.evaluations.publish(version.patch, version.number, on, results)
            run.out.table(rows, _COLUMNS)
        else:
            run.out.table(results, _UNPUBLISHED)

    @command(app, "results")
    def results(
        run: Run,
        *,
        patch: Annotated[str | None, typer.Option(help="A patch, or one of its versions.")] = None,
        base: Annotated[str | None, typer.Option("--on", help="A model version.")] = None,
        data_set: Annotated[str | None, typer.Option(help="Which images.")] = None,
        corruption: Annotated[str | None, typer.Option(help="What was done to them.")] = None,
        limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    ) -> None:
        """List evaluation results, newest first."""
        found = run.client.evaluations.listed(
            patch=patch, base=base, data_set=data_set, corruption=corruption
        )
        run.out.table(islice(found, limit), _COLUMNS)


_UNPUBLISHED: Final[dict[str, Callable[[Result], Cell]]] = {
    "data set": lambda row: row.data_set,
    "corruption": lambda row: row.corruption,
    "scale": lambda row: names.scale_text(row.scale),
    "accuracy": lambda row: f"{100 * row.accuracy:.2f} %",
    "n": lambda row: row.n,
}


# ── the user's code ──────────────────────────────────────────────────────────────────────────


def _function(code: str) -> Measure:
    """The function that `FILE.py:FUNCTION` or `MODULE:FUNCTION` names.

    Raises `ThingNotFound`; what the code itself raises goes to its author as it is.
    """
    where, _, name = code.rpartition(":")
    if not where or not name.isidentifier():
        raise typer.BadParameter(f"{code!r} is not FILE.py:FUNCTION or MODULE:FUNCTION")
    module = _file(Path(where)) if where.endswith(".py") else _module(where)
    found = getattr(module, name, None)
    if not callable(found):
        raise errors.ThingNotFound("function", code)
    measure: Measure = found
    return measure


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise errors.ThingNotFound("file", str(path))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # noqa: S101  # a name that ends in .py has a loader
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # as a dataclass or a pickle in it wants
    sys.path.insert(0, str(path.absolute().parent))  # what lies beside a script is importable
    spec.loader.exec_module(module)
    return module


def _module(name: str) -> ModuleType:
    sys.path.insert(0, "")
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise  # a module that the user's own code imports
        raise errors.ThingNotFound("module", name) from error


def _results(measured: Any, about: Mapping[str, Any], scale: Decimal) -> Iterator[Result]:
    """What the code answered, as results; raises `BadRequest` naming what is wrong with them."""
    several: Iterable[Any] = measured if isinstance(measured, list | tuple) else [measured]
    for each in several:
        if not isinstance(each, Mapping):
            raise errors.BadRequest(
                f"the function returned {each!r:.80}; it should return "
                '{"accuracy": a share from 0 to 1, "n": how many images}, or a list of such'
            )
        try:
            yield Result.model_validate({**about, **each, "scale": scale})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise errors.BadRequest(
                f"the function returned {dict(each)!r:.120}: {where}: {first['msg']}"
            ) from error


def _line(result: Result) -> str:
    return (
        f"scale {names.scale_text(result.scale):>6}  {result.corruption}  "
        f"{100 * result.accuracy:.2f} % of {result.n}"
    )


# ── the weights ──────────────────────────────────────────────────────────────────────────────


def _version(run: Run, patch: str) -> PatchVersionView:
    found = names.patch_reference(patch)
    number = found.revision or pulling.newest(run, str(found.name))
    return run.client.patches.version(str(found.name), number)


@contextmanager
def _base(run: Run, build: BuildView) -> Iterator[Path]:
    """The clean model, fetched once: a file, or a folder where it has several weight files."""
    with TemporaryDirectory(prefix="patchbay-") as folder:
        clean = run.client.builds.ready(RecipeBody(base=build.recipe.base))
        single = len(clean.files) == 1
        into = Path(folder, Path(clean.files[0].path).name if single else "model")
        pulling.fetch(run, clean, into, as_folder=not single)
        yield into


@contextmanager
def _copy(clean: Path, change: Change) -> Iterator[Path]:
    """A patched copy of the clean model, gone when it was measured."""
    with TemporaryDirectory(dir=clean.parent, prefix="patched-") as folder:
        into = Path(folder, clean.name)
        if clean.is_dir():  # what rides along, too: a config, a tokenizer
            taken = {Path(path).name for path in change.files}
            shutil.copytree(clean, into, ignore=lambda _, names: taken & set(names))
        for path, wanted in change.files.items():
            one = clean.is_file()
            write_copy(clean if one else clean / path, wanted, into if one else into / path)
        yield into

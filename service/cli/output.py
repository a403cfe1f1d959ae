"""What a command prints: results on stdout, for people or as JSON; progress on stderr.

Progress bars are drawn on a terminal alone, so that logs and pipes stay clean.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from service.client import downloads
from service.client.models import FileProgress
from service.client.operations import Watch
from service.names import Digest
from service.schemas.operations import OperationView

_PIPE_WIDTH = 1000

Row = TypeVar("Row", bound=BaseModel)
Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command's results go."""

    as_json: bool

    def result(self, value: BaseModel | Mapping[str, Any], lines: Iterable[str]) -> None:
        """Print one result: the value as JSON, or the lines for people."""
        if self.as_json:
            self._json(_plain(value))
        else:
            for line in lines:
                self._console().print(line, markup=False, highlight=False, soft_wrap=True)

    def table(self, rows: Iterable[Row], columns: Mapping[str, Callable[[Row], Cell]]) -> None:
        """Print a list: every row as JSON, or a table of the columns."""
        if self.as_json:
            self._json([_plain(row) for row in rows])
            return
        table = Table(box=None, header_style="bold", pad_edge=False)
        for number, name in enumerate(columns):
            table.add_column(name, no_wrap=number == 0)  # what others refer to stays whole
        for row in rows:
            cells = (cell(row) for cell in columns.values())
            table.add_row(*("" if cell is None else str(cell) for cell in cells))
        self._console().print(table, highlight=False, markup=False)

    def event(self, value: BaseModel, line: str) -> None:
        """Print one of a row of results as it comes: one JSON document a line."""
        if self.as_json:
            sys.stdout.write(json.dumps(_plain(value)) + "\n")
            sys.stdout.flush()
        else:
            self._console().print(line, markup=False, highlight=False, soft_wrap=True)

    def note(self, line: str) -> None:
        """Tell people something on stderr that is no result."""
        if not self.as_json:
            sys.stderr.write(line + "\n")

    @contextmanager
    def file_bars(self) -> Iterator[FileProgress]:
        """A bar for each file that is hashed, sent or fetched."""
        with _drawn(DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) as bars:

            def bar(phase: str, path: str) -> downloads.Progress:
                tasks: list[TaskID] = []

                def progress(done: int, total: int) -> None:
                    if not tasks:
                        tasks.append(bars.add_task(f"{phase} {path}", total=total or None))
                    bars.update(tasks[0], completed=done, total=total or None)

                return progress

            yield bar

    @contextmanager
    def operation_bar(self, label: str) -> Iterator[Watch]:
        """A bar for an operation."""
        with _drawn(TaskProgressColumn(), TextColumn("{task.fields[said]}")) as bar:
            task = bar.add_task(label, total=1.0, said="")

            def watch(operation: OperationView) -> None:
                said = operation.message or operation.state.value
                bar.update(task, completed=operation.progress, said=said)

            yield watch

    def _json(self, value: Any) -> None:
        sys.stdout.write(json.dumps(value, indent=2) + "\n")

    def _console(self) -> Console:
        console = Console(file=sys.stdout)
        if not console.is_terminal:
            console.width = _PIPE_WIDTH  # a script must not get shortened cells
        return console


@contextmanager
def _drawn(*columns: Any) -> Iterator[Progress]:
    console = Console(file=sys.stderr)
    text = TextColumn("{task.description}", markup=False)
    with Progress(
        text, BarColumn(), *columns, console=console, disable=not console.is_terminal
    ) as bar:
        yield bar


def _plain(value: BaseModel | Mapping[str, Any]) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else dict(value)


def verified_lines(files: Mapping[str, Digest]) -> list[str]:
    """What is told people of files whose bytes were held against their digest."""
    return [f"verified: sha256 {d.removeprefix('sha256:')}  {path}" for path, d in files.items()]


def size_text(size_bytes: int) -> str:
    """A size for people: `12.3 MB`."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:  # noqa: PLR2004 - decimal units
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"

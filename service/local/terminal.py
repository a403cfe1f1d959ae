"""What the local commands print: results on stdout, a bar on stderr where that is a terminal."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from service.local.files import Told

_PIPE_WIDTH: Final = 1000


@contextmanager
def bar() -> Iterator[Told]:
    """A bar that says what is being done."""
    console = Console(file=sys.stderr)
    with Progress(console=console, disable=not console.is_terminal) as drawn:
        tasks: dict[str, Any] = {}

        def told(done: float, what: str) -> None:
            if what not in tasks:
                tasks[what] = drawn.add_task(what, total=1.0)
            drawn.update(tasks[what], completed=done)

        yield told


def result(value: Mapping[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    """Print one result."""
    text = json.dumps(value, indent=2, default=str) if as_json else "\n".join(lines)
    sys.stdout.write(text + "\n")


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table."""
    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for number, name in enumerate(columns):
        drawn.add_column(name, overflow="fold", no_wrap=number == 0)
    for row in rows:
        drawn.add_row(*("" if cell is None else str(cell) for cell in row))
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH  # a script must not get shortened cells
    console.print(drawn, markup=False, highlight=False)

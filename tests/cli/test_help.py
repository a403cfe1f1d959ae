"""What `--help` prints, as people read it in a terminal of eighty columns."""

from collections.abc import Iterator

import pytest
import typer.main

import service.manage  # noqa: F401  # gives the commands their session
from service.cli.commands import app


def _commands(group: object, path: str) -> Iterator[tuple[str, object]]:
    for name, command in getattr(group, "commands", {}).items():
        yield f"{path} {name}", command
        yield from _commands(command, f"{path} {name}")


COMMANDS = dict(_commands(typer.main.get_command(app), "patchbay"))


@pytest.mark.parametrize("name", COMMANDS)
def test_no_help_is_taken_for_markup_or_broken_in_the_middle_of_a_line(name: str) -> None:
    command = COMMANDS[name]

    told = [getattr(option, "help", None) or "" for option in getattr(command, "params", [])]
    paragraphs = (getattr(command, "help", None) or "").split("\n\n")

    assert not [text for text in told if "[" in text]
    for lines in (paragraph.splitlines() for paragraph in paragraphs):
        assert len(lines) == 1 or max(map(len, lines), default=0) <= 78

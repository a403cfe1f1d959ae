"""The environments that the images hold, installed by the very scripts that the images run."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import typer
from typer.core import TyperGroup

from service import manage
from tests.seaweed import S3Address, start_seaweed

ROOT: Final = Path(__file__).parents[2]
INSTALL_S: Final = 900.0


@dataclass(frozen=True)
class Bare:
    """A virtual environment, with no sight of the one that the tests run in."""

    path: Path

    def run(
        self, *command: str, settings: dict[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run one of its programs to its end."""
        return subprocess.run(  # noqa: S603
            [self.path / "bin" / command[0], *command[1:]],
            env=bare_variables() | (settings or {}),
            cwd=self.path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(
        self, *command: str, settings: dict[str, str], log: Path
    ) -> "subprocess.Popen[bytes]":
        """Start one of its programs; what it says goes to `log`."""
        with log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603
                [self.path / "bin" / command[0], *command[1:]],
                env=bare_variables() | settings,
                cwd=self.path,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )


def bare_variables() -> dict[str, str]:
    """What a process of an image finds: a search path, and nothing of ours or of Python's."""
    kept = {name: os.environ[name] for name in ("LANG", "TZ", "TMPDIR") if name in os.environ}
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent"} | kept


def take(words: list[str]) -> None:
    """Have the command line read these words, and run nothing; raises where it would refuse."""
    group = typer.main.get_command(manage.app)  # type: ignore[attr-defined]  # imported there
    assert isinstance(group, TyperGroup)
    group.commands[words[0]].make_context(words[0], words[1:])


def copied(dockerfile: Path) -> list[str]:
    """The paths of the repository that an image is built of, as its COPY lines name them."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", dockerfile.read_text(), re.MULTILINE)
    return [path for line in lines for path in line.split()[:-1]]


def install(image: str, folder: Path) -> Bare:
    """Run the install script of an image on a copy of just the files that the image copies."""
    context, environment = folder / "context", folder / "environment"
    for name in copied(ROOT / "docker" / f"{image}.Dockerfile"):
        into = context / name
        into.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, into, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, into)
    done = subprocess.run(  # noqa: S603
        [context / "docker" / f"install-{image}.sh", environment],
        env=os.environ | {"PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_S,
        check=False,
    )
    assert done.returncode == 0, f"docker/install-{image}.sh failed:\n{done.stdout[-5000:]}"
    return Bare(environment)


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """What the web image holds."""
    return install("web", tmp_path_factory.mktemp("web"))


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """What the worker image holds, for the CPU."""
    return install("worker", tmp_path_factory.mktemp("worker"))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Address]:
    """A SeaweedFS with an empty bucket."""
    with start_seaweed(tmp_path_factory.mktemp("seaweed")) as address:
        yield address

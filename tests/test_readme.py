"""The README tells the truth: its tour runs as pasted, and it misses nothing that can be set."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from service.cli.commands import app
from service.manage import main  # noqa: F401  # mounts the rest of the commands
from service.settings import Settings
from tests.service_process import ServiceProcess

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TOUR = "\n".join(re.findall(r"^```sh tour\n(.*?)^```", README, re.DOTALL | re.MULTILINE))
NEEDED = ("bash", "curl", "cmp", "sha256sum")


@pytest.mark.xdist_group("service")
@pytest.mark.skipif(
    not all(map(shutil.which, NEEDED)), reason=f"the tour needs {', '.join(NEEDED)}"
)
def test_the_tour_works_as_pasted(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / ".venv").symlink_to(Path(os.environ.get("VIRTUAL_ENV", ROOT / ".venv")))
    with ServiceProcess() as service:
        script = TOUR.replace("http://127.0.0.1:8321", service.url)

        done = subprocess.run(  # noqa: S603
            ["bash", "-euo", "pipefail", "-c", script],  # noqa: S607
            cwd=tmp_path,
            env={**os.environ, "PATCHBAY_HOME": str(service.home)},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    assert done.returncode == 0, done.stdout + done.stderr
    for told in ('"succeeded"', "206", "reverted", "the base again", "the same bytes"):
        assert told in done.stdout


@pytest.mark.parametrize("setting", sorted(Settings.model_fields))
def test_every_setting_is_documented(setting: str) -> None:
    assert f"| `PATCHBAY_{setting.upper()}` |" in README
    assert Settings.model_fields[setting].description


@pytest.mark.parametrize("command", sorted(getattr(get_command(app), "commands", {})))
def test_every_command_is_documented(command: str) -> None:
    section = README.partition("## Commands")[2].partition("## The house")[0]

    assert re.search(rf"`(patchbay )?{command}( …)?`", section)


def test_every_floor_of_the_house_is_drawn() -> None:
    drawing = README.partition("## The house")[2].partition("## The words")[0]

    for place in (ROOT / "service").iterdir():
        if place.name not in {"__init__.py", "__pycache__", "py.typed"}:
            assert f"── {place.name}" in drawing, place.name

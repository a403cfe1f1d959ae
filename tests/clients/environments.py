"""The environments of real Hugging Face clients: made once, kept in a cache folder, by name.

`python -m tests.clients.environments` makes those that are missing. One of them holds all that
needs torch; the other two hold older clients alone.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import platformdirs

NEWEST: Final = "hub-2.4.0"
OLDER: Final = ("hub-1.33.0", "hub-0.36.2")

PACKAGES: Final[Mapping[str, Sequence[Sequence[str]]]] = {
    NEWEST: (
        ("torch==2.13.0", "huggingface_hub==2.4.0", "transformers==5.23.0", "safetensors==0.8.0"),
        # Without torchvision, whose builds for the CPU the default index has not; see `programs`.
        ("--no-deps", "timm==1.0.31"),
        ("pyyaml==6.0.3", "numpy>=2.3", "pillow==13.0.0"),
    ),
    "hub-1.33.0": (("huggingface_hub==1.33.0",),),
    "hub-0.36.2": (("huggingface_hub==0.36.2",),),
}
"""What pip installs into each, one call after the other."""


def folder() -> Path:
    """Where the environments lie: `PATCHBAY_CLIENTS`, or the user's cache folder."""
    given = os.environ.get("PATCHBAY_CLIENTS")
    return Path(given) if given else platformdirs.user_cache_path("patchbay-clients")


def environment(name: str) -> Path:
    """The environment of this name; fails by name where it is missing."""
    made = folder() / name
    if not _is_whole(made):
        raise FileNotFoundError(
            f"the environment {name} is not in {folder()}: python -m tests.clients.environments"
        )
    return made


def make(name: str) -> None:
    """Make an environment, unless it is there already and whole."""
    made = folder() / name
    if _is_whole(made):
        return
    _run(sys.executable, "-m", "venv", "--clear", str(made))  # an interrupted run left anything
    for packages in PACKAGES[name]:
        _run(str(made / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages)
    _stamp(made).write_text(_contents(name))


def _is_whole(made: Path) -> bool:
    """Whether all that is listed now was installed to the end."""
    stamp = _stamp(made)
    return stamp.is_file() and stamp.read_text() == _contents(made.name)


def _stamp(made: Path) -> Path:
    return made / ".complete"


def _contents(name: str) -> str:
    return "\n".join(" ".join(packages) for packages in PACKAGES[name])


def _run(*command: str) -> None:
    subprocess.run(command, check=True)  # noqa: S603


if __name__ == "__main__":
    for each in PACKAGES:
        make(each)

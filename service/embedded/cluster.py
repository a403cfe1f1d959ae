"""A database cluster on disk: made whole or not at all, checked against the programs."""

import os
import secrets
import shutil
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path

from service import errors
from service.embedded import binaries, processes
from service.embedded.accounts import Account

SUPERUSER = "postgres"

# Postgres' own tables of characters from 17 on: an upgrade of the C library cannot reorder indexes.
_BUILTIN_LOCALE = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
_LIBRARY_LOCALE = ["--locale=C.UTF-8"]
_BUILTIN_SINCE = 17


@dataclass(frozen=True, slots=True)
class Cluster:
    """The directory `postgres/` of a home."""

    path: Path

    @property
    def data(self) -> Path:
        """The server's data directory."""
        return self.path / "data"

    @property
    def password(self) -> str:
        """The password of its roles."""
        return (self.path / "password").read_text().strip()

    def make(self, programs: Path, account: Account, *, fsync: bool) -> None:
        """Make the cluster if it is absent; a half-made one of a killed process is cleared away.

        Raises `PartFailed` with what initdb said.
        """
        for abandoned in self.path.parent.glob(f"{self.path.name}.new-*"):
            shutil.rmtree(abandoned)
        if self.path.exists():
            return
        staging = Path(tempfile.mkdtemp(prefix=f"{self.path.name}.new-", dir=self.path.parent))
        staging.chmod(0o711)
        _initialize(staging, programs, account, fsync=fsync)
        staging.rename(self.path)
        if fsync:
            _sync(self.path.parent)

    def check(self, programs: Path, account: Account) -> None:
        """Check that the programs can serve this data; raises `PartFailed`."""
        made_by = int((self.data / "PG_VERSION").read_text())
        major = binaries.major_version(programs, account)
        if made_by != major:
            raise errors.PartFailed(
                "Postgres",
                f"{self.data} was made by Postgres {made_by}, {programs} is {major}: dump it with "
                f"the former and load it with the latter, or set PATCHBAY_DATABASE_URL",
            )


def _initialize(staging: Path, programs: Path, account: Account, *, fsync: bool) -> None:
    password = staging / "password"
    handed = staging / "pwfile"  # initdb reads it as Postgres' user
    text = secrets.token_urlsafe(24)
    for path in (password, handed):
        path.touch(mode=0o600)
        path.write_text(text)
    data = staging / "data"
    data.mkdir(mode=0o700)
    account.hand_over(data)
    account.hand_over(handed)

    major = binaries.major_version(programs, account)
    locale = _BUILTIN_LOCALE if major >= _BUILTIN_SINCE else _LIBRARY_LOCALE
    command = [str(programs / "initdb"), "-D", str(data), "-U", SUPERUSER, *locale]
    command += ["-A", "scram-sha-256", f"--pwfile={handed}", "-E", "UTF8", "--data-checksums"]
    command += [] if fsync else ["--no-sync"]
    said = staging / "initdb.log"
    with said.open("wb") as output:
        process = processes.launch(
            command, environment(), account=account, dies_by=signal.SIGKILL, output=output
        )
        try:
            status = process.wait()
        finally:
            processes.Child(process).stop()  # Ctrl-C: initdb has a process of its own below it
        if status != 0:
            raise errors.PartFailed("Postgres", f"initdb failed: {said.read_text().strip()}")
    handed.unlink()
    said.unlink()
    if fsync:
        _sync(password)
        _sync(staging)


def environment() -> dict[str, str]:
    """The environment of the server's programs: of ours only PATH, and no PG* variables."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)

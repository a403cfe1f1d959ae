"""Where the embedded Postgres listens: a socket in a directory of its user alone."""

import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

from service.embedded import accounts
from service.embedded.accounts import Account
from service.embedded.home import Home

PORT = 5432  # only a part of the socket's file name; nothing listens on the network

# The socket's full name must fit into sockaddr_un: 104 bytes on macOS, 108 on Linux.
_LONGEST_DIRECTORY = 103 - len(f"/.s.PGSQL.{PORT}")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")  # a space or a comma has a meaning in some URLs


def directory(home: Home, account: Account) -> Path:
    """Make the directory: in the home where the socket's name stays short, else a temporary one.

    The home remembers the temporary one, so that the URL outlives a restart. Nothing may listen
    there yet: what a killed server left in it is removed.

    Raises `HomeUnusable` where `account` may not pass to it.
    """
    place = home.run / "postgres"
    if not _fits(place):
        place = _temporary(home.run / "postgres-sockets", account)
    place.mkdir(mode=0o700, exist_ok=True)
    for left in place.glob(".s.PGSQL.*"):
        left.unlink()
    account.hand_over(place)
    accounts.require_passable(place.parent, account)
    return place


def forget(home: Home) -> None:
    """Remove the temporary directory, if there is one; the next start makes it again."""
    record = home.run / "postgres-sockets"
    if record.exists():
        shutil.rmtree(record.read_text(), ignore_errors=True)


def _fits(place: Path) -> bool:
    short = len(os.fsencode(place)) <= _LONGEST_DIRECTORY
    return short and _PLAIN_PATH.fullmatch(str(place)) is not None


def _temporary(record: Path, account: Account) -> Path:
    if record.exists() and _take(earlier := Path(record.read_text()), account):
        return earlier
    made = Path(tempfile.mkdtemp(prefix="patchbay-"))
    whole = record.with_name(record.name + ".new")
    whole.write_text(str(made))
    whole.rename(record)
    return made


def _take(place: Path, account: Account) -> bool:
    """Make the directory, or see that it is a directory of ours; anyone can write next to it."""
    try:
        place.mkdir(mode=0o700)
    except FileExistsError:
        found = place.lstat()
        ours = found.st_uid in {account.user, os.geteuid()}
        return ours and stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    except FileNotFoundError:
        return False
    return True

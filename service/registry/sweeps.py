"""Sweeps: many recipes on one base, built in one walk over its tensors."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy.orm import Session

from service import errors
from service.db.tables.builds import EXPIRED, READY, Build
from service.db.tables.operations import Operation
from service.names import Digest
from service.registry import builds, operations
from service.registry.access import Principal
from service.registry.builds import Overlay
from service.registry.recipes import Resolved

SWEEP: Final = "sweep"


def request(
    session: Session, wanted: Sequence[Resolved], *, by: Principal, limits: operations.Limits
) -> tuple[list[Build], Operation | None]:
    """Ask for recipes on one base: their builds, and the operation that makes what is missing.

    What another operation is making already is left to it. Raises `SeveralBases`, `NoWorker`,
    `QueueFull`.
    """
    bases = sorted({resolved.base.reference for resolved in wanted})
    if len({resolved.base.weights_digest for resolved in wanted}) > 1:
        raise errors.SeveralBases(bases)
    claims = builds.claim_all(session, wanted, by=by)
    missing = [
        build for build, under_way in claims.values() if build.state != READY and not under_way
    ]
    found = [claims[resolved.canonical.digest][0] for resolved in wanted]
    if not missing:
        return found, next((under_way for _, under_way in claims.values() if under_way), None)
    operation = builds.begin(
        session,
        missing,
        SWEEP,
        f"{len(missing)} recipe{'s' if len(missing) > 1 else ''} on {bases[0]}",
        {"recipes": [build.recipe_digest for build in missing]},
        by=by,
        limits=limits,
    )
    return found, operation


def record(
    session: Session,
    operation: Operation,
    made: Sequence[Sequence[Overlay] | errors.PatchbayError],
) -> dict[str, Any]:
    """Publish the builds of a sweep, in the request's order; answers the operation's result.

    A recipe that could not be carried out is listed with the reason; the others are published.
    Raises its error where none could be.
    """
    outcomes = dict(zip(map(Digest, operation.request["recipes"]), made, strict=True))
    failures = {
        digest: outcome
        for digest, outcome in outcomes.items()
        if isinstance(outcome, errors.PatchbayError)
    }
    if len(failures) == len(outcomes):
        raise next(iter(failures.values()))
    for digest in failures:
        session.get_one(Build, digest).state = EXPIRED
    session.flush()
    done = builds.record_all(
        session,
        {
            digest: outcome
            for digest, outcome in outcomes.items()
            if not isinstance(outcome, errors.PatchbayError)
        },
    )
    failed = [
        {"recipe": digest, "type": error.slug, "detail": str(error)}
        for digest, error in failures.items()
    ]
    return {"builds": done, "failed": failed}

"""Sets of patches compared each with each: asked of a worker once, known ever after."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service import errors, queue
from service.db.tables.operations import Operation
from service.db.tables.patches import PatchVersion
from service.db.tables.similarity import Comparison
from service.names import Digest, digest_of_json, patch_reference, version_number
from service.registry import operations, patches
from service.registry.access import Principal
from service.schemas.similarity import SetView

COMPARE: Final = "compare"


def chosen(session: Session, references: Sequence[str]) -> list[PatchVersion]:
    """The versions that references name, each once.

    Raises `BadReference`, `BadName`, `BadRequest`, `ThingNotFound`, `ThingDeleted`.
    """
    found: dict[str, PatchVersion] = {}
    for text in references:
        reference = patch_reference(text)
        number = version_number(reference.revision) if reference.revision else None
        version = patches.resolve(session, reference.name, number)
        found.setdefault(version.digest, version)
    if len(found) < len(references):
        raise errors.BadRequest("two of the patches are the same file; name each once")
    return list(found.values())


def find(session: Session, versions: Sequence[PatchVersion]) -> Mapping[str, Any] | None:
    """What is known of a set, in the order of its sorted digests."""
    known = session.get(Comparison, _digest(versions))
    return known.result if known else None


def request(
    session: Session, versions: Sequence[PatchVersion], *, by: Principal, limits: operations.Limits
) -> Operation:
    """Ask for a set to be compared; everybody who asks for one set shares one operation.

    Raises `NoWorker`, `QueueFull`.
    """
    digest = _digest(versions)
    under_way = select(Operation).where(
        Operation.queue == queue.CPU,
        Operation.state.in_(operations.OPEN),
        Operation.kind == COMPARE,
        Operation.request["set"].astext == digest,
    )
    found = session.scalar(under_way.order_by(Operation.created_at).limit(1))
    if found is not None:
        return found
    operations.require_worker(session, queue.CPU, limits)
    files = {version.digest: version.size_bytes for version in versions}
    names = [version.reference for version in versions]
    return operations.request(
        session,
        COMPARE,
        f"compare {', '.join(names[:3])}{', …' if len(names) > 3 else ''}",  # noqa: PLR2004
        {"set": digest, "files": sorted(files.items()), "patches": names},
        by=by,
        on=queue.CPU,
        limits=limits,
    )


def inputs(request: Mapping[str, Any]) -> list[tuple[Digest, int]]:
    """Which files to compare: digest and size in bytes of each."""
    return [(Digest(digest), size) for digest, size in request["files"]]


def record(session: Session, operation: Operation, result: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what was found; answers the operation's result."""
    digest = operation.request["set"]
    row = insert(Comparison).values(digest=digest, result=dict(result))
    session.execute(row.on_conflict_do_nothing())
    return {"set": digest, "files": [name for name, _ in operation.request["files"]], **result}


def shown(versions: Sequence[PatchVersion], known: Mapping[str, Any]) -> SetView:
    """A set as its asker ordered it."""
    at = _places(versions)

    def ordered(matrix: list[list[Any]]) -> list[list[Any]]:
        return [[matrix[row][column] for column in at] for row in at]

    return SetView(
        patches=[version.reference for version in versions],
        cosines=ordered(known["cosines"]),
        shared=ordered(known["shared"]),
        conflict=ordered(known["conflict"]),
    )


def _places(versions: Sequence[PatchVersion]) -> list[int]:
    ranked = sorted(version.digest for version in versions)
    return [ranked.index(version.digest) for version in versions]


def _digest(versions: Sequence[PatchVersion]) -> Digest:
    return digest_of_json({"signatures": sorted(version.digest for version in versions)})

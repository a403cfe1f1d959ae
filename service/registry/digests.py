"""The sha256 of patched files, computed once in the background by whoever serves queue `cpu`.

A patched file is never stored, so its digest costs a pass over it: a worker reads the file by the
very plan that clients are sent, and the digest is recorded beside the overlay that it follows from.
"""

import sys
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy.orm import Session

from service import errors, queue
from service.db.tables.builds import READY, Build
from service.db.tables.operations import Operation
from service.layout.splice import Plan
from service.names import Digest
from service.registry import blobs, builds, operations, plans, recipes
from service.registry.access import Principal
from service.schemas.operations import State

DIGEST: Final = "digest"
_SERVICE: Final = Principal("patchbay", frozenset())
_UNREFUSED: Final = operations.Limits(queued=sys.maxsize)
"""At most one of these waits for each build, and what a user asked for has passed the limit."""


def request(session: Session, build: Build) -> Operation | None:
    """Have a ready build's patched files hashed; None where every digest is known.

    Everybody who needs one build's digests shares one operation. Raises `BuildNotReady`.
    """
    if all(file.file_digest for file in build.files):
        return None
    under_way = _under_way(session, build)
    if under_way is None:
        session.refresh(build, ["state", "digest_operation_id"], with_for_update=True)
        under_way = _under_way(session, build)  # another may have asked just now
    if under_way is not None:
        return under_way
    if build.state != READY:
        raise errors.BuildNotReady(builds.hex_of(build.recipe_digest))
    session.refresh(build, ["files"])
    if all(file.file_digest for file in build.files):
        return None
    operation = operations.request(
        session,
        DIGEST,
        recipes.pinned(recipes.loaded(build.recipe)),
        {"recipe": build.recipe_digest},
        by=_SERVICE,
        on=queue.CPU,
        limits=_UNREFUSED,
    )
    build.digest_operation_id = operation.id
    session.flush()
    return operation


def _under_way(session: Session, build: Build) -> Operation | None:
    if build.digest_operation_id is None:
        return None
    operation = operations.find(session, build.digest_operation_id)
    return None if State(operation.state).ended else operation


def inputs(
    session: Session, request: Mapping[str, Any]
) -> tuple[Mapping[str, Plan], Mapping[Digest, int]]:
    """What the worker must read: the plan of each patched file, and the sizes of their blobs.

    Raises `BuildNotReady` and `DamagedBlob`.
    """
    planned = plans.patched(session, builds.ready(session, Digest(request["recipe"])))
    named = [digest for plan in planned.values() for digest in plan.digests]
    blobs.require_sound(session, named)
    return planned, blobs.sizes(session, named)


def record(session: Session, operation: Operation, found: Mapping[str, Digest]) -> dict[str, Any]:
    """Record the digests of patched files by path; answers the operation's result.

    The same recipe gives the same bytes: raises `BuildDiffers` where another digest is known.
    """
    recipe = operation.request["recipe"]
    build = session.get(Build, recipe, with_for_update={"of": Build}, populate_existing=True)
    if build is None:
        raise errors.ThingNotFound("build", recipe)
    for file in build.files:
        made = found.get(file.path)
        if made is None:
            continue
        if file.file_digest not in {None, made}:
            raise errors.BuildDiffers(recipe, file.path, str(file.file_digest), made)
        file.file_digest = made
    session.flush()
    return {
        "id": builds.hex_of(recipe),
        "files": dict(found),
        "links": {"build": f"/v1/builds/{builds.hex_of(recipe)}"},
    }

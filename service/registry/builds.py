"""Builds: ask for a recipe to be carried out, and record the overlays that it gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, lazyload

from service import errors, queue
from service.db.tables.builds import BUILDING, EXPIRED, READY, Build, BuildFile
from service.db.tables.models import ModelFile, ModelVersion
from service.db.tables.operations import Operation
from service.db.tables.patches import PatchVersion
from service.db.tables.recipes import Recipe
from service.layout.header import Header, parse
from service.names import Digest, parse_digest
from service.registry import blobs, channels, operations, recipes
from service.registry.access import Principal
from service.registry.recipes import Resolved
from service.schemas.operations import State

BUILD: Final = "build"


@dataclass(frozen=True, slots=True)
class Overlay:
    """What a worker made for one weight file; the blob is in the store already."""

    path: str
    digest: Digest
    size_bytes: int
    header: bytes


def request(
    session: Session, resolved: Resolved, *, by: Principal, limits: operations.Limits
) -> tuple[Build, Operation | None]:
    """Ask for a recipe to be carried out: ready at once, or an operation that is under way.

    Everybody who asks for one recipe shares one operation. Raises `NoWorker`, `QueueFull`.
    """
    build, under_way = claim(session, resolved, by=by)
    if build.state == READY or under_way is not None:
        return build, under_way
    operation = begin(
        session,
        [build],
        BUILD,
        recipes.pinned(resolved),
        {"recipe": build.recipe_digest},
        by=by,
        limits=limits,
    )
    return build, operation


def claim(session: Session, resolved: Resolved, *, by: Principal) -> tuple[Build, Operation | None]:
    """The build of a recipe, and the operation that is making it; as `claim_all` does."""
    return claim_all(session, [resolved], by=by)[resolved.canonical.digest]


def claim_all(
    session: Session, every: Sequence[Resolved], *, by: Principal
) -> dict[Digest, tuple[Build, Operation | None]]:
    """The builds of recipes by their digests, and the operations that are making them.

    Those neither ready nor being made are held until the transaction ends; in order of their
    digests, since two who hold some of each other's would never end.
    """
    wanted = {resolved.canonical.digest: resolved for resolved in every}
    ready = select(Build).where(Build.recipe_digest.in_(wanted), Build.state == READY)
    # The common case, a warm pull, locks and writes nothing.
    found: dict[Digest, tuple[Build, Operation | None]] = {
        Digest(build.recipe_digest): (build, None) for build in session.scalars(ready)
    }
    missing = sorted(wanted.keys() - found.keys())
    if not missing:
        return found
    recipes.save_all(session, [wanted[digest] for digest in missing], by=by)
    rows = [{"recipe_digest": each, "state": EXPIRED, "created_by": by.id} for each in missing]
    session.execute(insert(Build).values(rows).on_conflict_do_nothing())
    held = session.scalars(
        select(Build)
        .where(Build.recipe_digest.in_(missing))
        .order_by(Build.recipe_digest)
        .with_for_update(of=Build)
        .execution_options(populate_existing=True)
    ).all()
    for build in held:
        digest = Digest(build.recipe_digest)
        found[digest] = build, _under_way(session, build, wanted[digest])
    return found


def _under_way(session: Session, build: Build, resolved: Resolved) -> Operation | None:
    """The operation that is making a held build; one without patches is ready at once."""
    if build.state != READY and not resolved.parts:
        build.state, build.ready_at = READY, func.now()
        session.flush()
        session.refresh(build)
    if build.state == BUILDING and build.operation_id is not None:
        under_way = operations.find(session, build.operation_id)
        if not State(under_way.state).ended:
            return under_way
    return None


def begin(
    session: Session,
    claimed: Sequence[Build],
    kind: str,
    subject: str,
    body: Mapping[str, Any],
    *,
    by: Principal,
    limits: operations.Limits,
) -> Operation:
    """Queue one operation that makes the claimed builds, all on the same weights.

    Raises `DamagedBlob`, `NoWorker`, `QueueFull`.
    """
    _require_sound_base(session, claimed[0].recipe.base)
    operations.require_worker(session, queue.GPU, limits)
    operation = operations.request(session, kind, subject, body, by=by, on=queue.GPU, limits=limits)
    digests = [build.recipe_digest for build in claimed]
    session.execute(
        update(Build)
        .where(Build.recipe_digest.in_(digests))
        .values(state=BUILDING, operation_id=operation.id)
    )
    return operation


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the worker must know of a recipe; patches in canonical order with their scales."""

    patches: tuple[tuple[PatchVersion, Decimal], ...]
    overlay_bytes: int


def inputs(session: Session, every: Sequence[Digest]) -> tuple[ModelVersion, list[Wanted]]:
    """The base that recipes share, and what is wanted on it, in their order.

    Raises `ThingNotFound`, and `DamagedBlob`: from a damaged base another build would come.
    """
    found = recipes.find_all(session, every)
    base = found[0].base
    _require_sound_base(session, base)
    wanted = [
        Wanted(tuple((row.version, row.scale) for row in recipe.patches), recipe.overlay_bytes)
        for recipe in found
    ]
    return base, wanted


def record(session: Session, digest: Digest, overlays: Sequence[Overlay]) -> dict[str, Any]:
    """Publish the build of a recipe; as `record_all` does."""
    return record_all(session, {digest: overlays})[0]


def record_all(session: Session, made: Mapping[Digest, Sequence[Overlay]]) -> list[dict[str, Any]]:
    """Publish the builds of recipes; answers what an operation says of each.

    The operation is held by the caller. A rebuild must give the bytes that were recorded first, or
    raises `BuildDiffers`; raises `DamagedBlob` where the base was found damaged meanwhile.
    """
    held = session.scalars(
        select(Build)
        .where(Build.recipe_digest.in_(made))
        .order_by(Build.recipe_digest)
        .options(lazyload(Build.recipe))
        .with_for_update(of=Build)
        .execution_options(populate_existing=True)
    )
    found = {build.recipe_digest: build for build in held}
    for digest, overlays in made.items():
        if digest not in found:
            raise errors.ThingNotFound("build", digest)
        _check_same(found[digest], overlays)
    for build in list(found.values())[:1]:  # what is recorded together is built on one base
        _require_sound_base(session, build.recipe.base)
    every = [overlay for overlays in made.values() for overlay in overlays]
    blobs.record_all(session, {overlay.digest: overlay.size_bytes for overlay in every})
    for digest, overlays in made.items():
        if not found[digest].files:
            session.add_all(_file(digest, overlay) for overlay in overlays)
    session.flush()
    session.execute(
        update(Build)
        .where(Build.recipe_digest.in_(made))
        .values(state=READY, ready_at=func.now(), used_at=func.now())
        .execution_options(synchronize_session=False)
    )
    for build in found.values():
        session.expire(build)
    return [_told(digest, overlays) for digest, overlays in made.items()]


def _check_same(build: Build, overlays: Sequence[Overlay]) -> None:
    recorded = {file.path: file.overlay_digest for file in build.files}
    made: dict[str, str] = {overlay.path: overlay.digest for overlay in overlays}
    for path in sorted(recorded.keys() | made.keys()) if build.files else ():
        expected, actual = recorded.get(path, "nothing"), made.get(path, "nothing")
        if expected != actual:
            raise errors.BuildDiffers(Digest(build.recipe_digest), path, expected, actual)


def _file(digest: Digest, overlay: Overlay) -> BuildFile:
    return BuildFile(
        recipe_digest=digest,
        path=overlay.path,
        overlay_digest=overlay.digest,
        overlay_size_bytes=overlay.size_bytes,
        overlay_header=overlay.header,
    )


def _told(digest: Digest, overlays: Sequence[Overlay]) -> dict[str, Any]:
    path = f"/v1/builds/{hex_of(digest)}"
    return {
        "id": hex_of(digest),
        "recipe": digest,
        "overlay_bytes": sum(overlay.size_bytes for overlay in overlays),
        "links": {"build": path, "weights": f"{path}/weights", "overlay": f"{path}/overlay"},
    }


def _require_sound_base(session: Session, base: ModelVersion) -> None:
    blobs.require_sound(session, [Digest(file.digest) for file in base.weight_files])


def hex_of(digest: str) -> str:
    """A build's id: its recipe digest in hex."""
    return digest.removeprefix("sha256:")


def find(session: Session, build_id: str) -> Build:
    """The build of this id (64 hex digits); raises `ThingNotFound`, `BadDigest`."""
    digest = parse_digest(f"sha256:{build_id}")
    build = session.get(Build, digest)
    if build is None or (build.ready_at is None and build.state != BUILDING):
        raise errors.ThingNotFound("build", build_id)
    return build


def ready(session: Session, recipe: Digest) -> Build:
    """The build of a recipe, if its files can be sent now; raises `BuildNotReady`."""
    build = session.get(Build, recipe)
    if build is None or build.state != READY:
        raise errors.BuildNotReady(hex_of(recipe))
    return build


def listed(
    session: Session,
    *,
    file: Digest | None = None,
    after: tuple[datetime, str] | None,
    limit: int,
) -> Sequence[Build]:
    """Some builds, newest first, behind the one of (`created_at`, recipe digest).

    `file` keeps those that give a patched file of this digest, as far as it is computed.
    """
    known = or_(Build.ready_at.is_not(None), Build.state == BUILDING)
    query = select(Build).where(known)
    if file is not None:
        query = query.where(Build.files.any(BuildFile.file_digest == file))
    query = query.order_by(Build.created_at.desc(), Build.recipe_digest.desc())
    if after is not None:
        query = query.where(tuple_(Build.created_at, Build.recipe_digest) < after)
    return session.scalars(query.limit(limit)).all()


def expire(session: Session, build: Build) -> None:
    """Let go of a build's overlays, which can be made again to the same bytes.

    The blobs stay until they are collected. Raises `BuildNotReady`, and `StillNeeded` while a
    channel points at the recipe.
    """
    session.refresh(build, ["state"], with_for_update=True)  # another may begin it anew just now
    if build.state != READY:
        raise errors.BuildNotReady(hex_of(build.recipe_digest))
    followed = channels.pointing_at(session, Recipe.digest == build.recipe_digest)
    if followed:
        raise errors.StillNeeded("build", hex_of(build.recipe_digest), followed, [])
    build.state = EXPIRED
    session.flush()


def distrust(session: Session, damaged: Digest) -> None:
    """Let go of what a damaged blob may have spoiled; it is made again once the blob is whole.

    Of its overlay, the bytes are known and are made again. An overlay that was made from it may be
    wrong, so what was recorded is forgotten; where the file was hashed since, it is right: that
    pass held the base to its digest.
    """
    own = select(BuildFile.recipe_digest).where(BuildFile.overlay_digest == damaged)
    session.execute(
        update(Build)
        .where(Build.recipe_digest.in_(own), Build.state == READY)
        .values(state=EXPIRED)
        .execution_options(synchronize_session=False)
    )
    on_it = (
        select(Recipe.digest)
        .join(ModelFile, ModelFile.version_id == Recipe.base_version_id)
        .where(ModelFile.digest == damaged)
    )
    unhashed = select(BuildFile.recipe_digest).where(BuildFile.file_digest.is_(None))
    spoiled = session.scalars(
        select(Build)
        .where(Build.recipe_digest.in_(on_it), Build.recipe_digest.in_(unhashed))
        .order_by(Build.recipe_digest)
        .with_for_update(of=Build)
        .execution_options(populate_existing=True)
    ).all()
    for build in spoiled:
        build.files.clear()
        if build.state == READY:
            build.state = EXPIRED
    session.flush()


def overlay_header(file: BuildFile) -> Header:
    """The header of an overlay, as recorded with the build."""
    return parse(file.overlay_header, file.overlay_size_bytes, f"the overlay of {file.path}")

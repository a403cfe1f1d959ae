"""Plans of the files that a build gives: which bytes of which blobs, and which digests they have.

What a plan says never changes, so each process keeps those that it made lately. Whether a build is
ready, and whether a file's own sha256 is known yet, is asked of the database each time: one query.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from threading import Lock
from typing import Final

from sqlalchemy import and_, func, select, update
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.builds import READY, Build, BuildFile
from service.db.tables.models import ModelFile
from service.layout.splice import Literal, Plan, plan_patched, plan_plain, plan_undo
from service.names import Digest
from service.registry import blobs, builds, models

USED_EVERY: Final = timedelta(minutes=1)  # how exact `used_at` is: not a write per download
KEPT_BYTES: Final = 16 * 2**20
_SEGMENT_BYTES: Final = 150  # of a range of a blob in memory, about


class Part(StrEnum):
    """Which of a build's files is meant."""

    WEIGHTS = "weights"
    OVERLAY = "overlay"
    UNDO = "undo"


@dataclass(frozen=True, slots=True)
class FilePlan:
    """The bytes of one file, and what its response headers say about it."""

    plan: Plan
    path: str
    recipe: Digest
    base: str
    base_digest: Digest
    overlay_digest: Digest | None


Key = tuple[Digest, Part, str | None]


@dataclass
class Kept:
    """The plans that this process made lately, up to `limit_bytes` of memory; thread-safe."""

    limit_bytes: int = KEPT_BYTES
    _plans: OrderedDict[Key, FilePlan] = field(default_factory=OrderedDict)
    _size_bytes: int = 0
    _lock: Lock = field(default_factory=Lock)

    def get(self, key: Key) -> FilePlan | None:
        """The plan, if it is kept."""
        with self._lock:
            found = self._plans.get(key)
            if found is not None:
                self._plans.move_to_end(key)
            return found

    def put(self, key: Key, made: FilePlan) -> None:
        """Keep a plan; those that were not used for longest make room."""
        with self._lock:
            if (former := self._plans.pop(key, None)) is not None:
                self._size_bytes -= _size_of(former)
            self._plans[key] = made
            self._size_bytes += _size_of(made)
            while self._size_bytes > self.limit_bytes:
                _, oldest = self._plans.popitem(last=False)
                self._size_bytes -= _size_of(oldest)


def _size_of(made: FilePlan) -> int:
    return sum(
        _SEGMENT_BYTES + (len(segment.content) if isinstance(segment, Literal) else 0)
        for segment in made.plan.segments
    )


def find(session: Session, kept: Kept, recipe: Digest, part: Part, path: str | None) -> FilePlan:
    """The plan of one file of a ready build; `path` may be left out if there is one.

    Raises `BuildNotReady`, `SeveralFiles`, `ThingNotFound`.
    """
    key = recipe, part, path
    if (known := kept.get(key)) and (now := _as_of_now(session, known, part)):
        return now
    made = plan(session, builds.ready(session, recipe), part, path)
    kept.put(key, made)
    return _as_of_now(session, made, part) or made


def plan(session: Session, build: Build, part: Part, path: str | None) -> FilePlan:
    """Plan the bytes of one file of a ready build.

    Raises `BuildNotReady`, `SeveralFiles`, `ThingNotFound`.
    """
    if build.state != READY:
        raise errors.BuildNotReady(builds.hex_of(build.recipe_digest))
    base = build.recipe.base
    file, overlay = _chosen(build, part, path)
    if overlay is None:
        planned = plan_plain(Digest(file.digest), file.size_bytes)
    elif part is Part.OVERLAY:
        planned = plan_plain(Digest(overlay.overlay_digest), overlay.overlay_size_bytes)
    else:
        planned = _spliced(session, part, file, overlay)
    return FilePlan(
        plan=planned,
        path=file.path,
        recipe=Digest(build.recipe_digest),
        base=base.reference,
        base_digest=Digest(file.digest),
        overlay_digest=Digest(overlay.overlay_digest) if overlay else None,
    )


def patched(session: Session, build: Build) -> Mapping[str, Plan]:
    """The plans of the weight files that a ready build changes, by path."""
    return {f.path: plan(session, build, Part.WEIGHTS, f.path).plan for f in build.files}


def _as_of_now(session: Session, known: FilePlan, part: Part) -> FilePlan | None:
    """Check that the build is still ready, and name the file's sha256 if it is known by now.

    None where the build has other overlays by now: the former ones came from a damaged base.
    """
    row = session.execute(
        select(
            Build.state,
            Build.used_at,
            BuildFile.file_digest,
            BuildFile.overlay_digest,
            blobs.damaged(known.plan.digests).label("damaged"),
        )
        .outerjoin(
            BuildFile,
            and_(BuildFile.recipe_digest == Build.recipe_digest, BuildFile.path == known.path),
        )
        .where(Build.recipe_digest == known.recipe)
    ).one_or_none()
    if row is None or row.state != READY:
        raise errors.BuildNotReady(builds.hex_of(known.recipe))
    if row.damaged is not None:
        raise errors.DamagedBlob(row.damaged)
    if row.overlay_digest != known.overlay_digest:
        return None
    if row.used_at < datetime.now(UTC) - USED_EVERY:
        _touch(session, known.recipe)
    if part is Part.WEIGHTS and row.file_digest and known.plan.sha256 is None:
        return replace(known, plan=replace(known.plan, sha256=Digest(row.file_digest)))
    return known


def _touch(session: Session, recipe: Digest) -> None:
    session.execute(
        update(Build)
        .where(Build.recipe_digest == recipe, Build.used_at < func.now() - USED_EVERY)
        .values(used_at=func.now())
    )


def _chosen(build: Build, part: Part, path: str | None) -> tuple[ModelFile, BuildFile | None]:
    """The weight file that is meant, and its overlay if any patch touches it."""
    base = build.recipe.base
    overlays = {file.path: file for file in build.files}
    if part is Part.WEIGHTS:
        file = models.weight_file(base, path)
        return file, overlays.get(file.path)
    if path is None and len(overlays) > 1:
        raise errors.SeveralFiles(sorted(overlays))
    if path is None and len(overlays) == 1:
        (path,) = overlays
    if path not in overlays:
        what = f"{path or 'any file'}: no patch touches it"
        raise errors.ThingNotFound(part.value, what)
    return models.weight_file(base, path), overlays[path]


def _spliced(session: Session, part: Part, file: ModelFile, overlay: BuildFile) -> Plan:
    base = models.headers(session, [file])[file.path]
    header = builds.overlay_header(overlay)
    if part is Part.UNDO:
        return plan_undo(Digest(file.digest), base, header)
    return plan_patched(Digest(file.digest), base, Digest(overlay.overlay_digest), header)

"""Patches: publish versions, find them, check files made elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session, selectinload

from service import errors, queue
from service.db.tables.models import Model, ModelVersion
from service.db.tables.operations import Operation
from service.db.tables.patches import Patch, PatchVersion
from service.layout.fit import Place
from service.names import Digest, Name
from service.registry import blobs, fits, lines, operations
from service.registry.access import Principal

VERIFY = "verify"
LINEAGE = (PatchVersion.clean, PatchVersion.robust, PatchVersion.origin)


@dataclass(frozen=True, slots=True)
class Signature:
    """What the registry keeps about a patch file: read from its index, never guessed.

    `tensors` holds [path, name, shape, kind] each; `inputs` names the models it was extracted from
    by version digest, under `clean`, `robust` and `origin`.
    """

    digest: Digest
    size_bytes: int
    tensors: list[list[Any]]
    summary: dict[str, Any]
    inputs: Mapping[str, Digest | None]


def needs(version: PatchVersion) -> list[Place]:
    """What a patch must find on a base."""
    return [Place.from_json(row) for row in version.tensors]


def publish(
    session: Session,
    name: Name,
    signature: Signature,
    *,
    profile: Digest | None,
    operation: Operation | None,
    by: str,
    lineage: Mapping[str, ModelVersion | None],
) -> tuple[PatchVersion, bool]:
    """Publish a patch file as the next version; the same file again is the same version.

    `lineage` may name the versions it was extracted from; where it does not, they are looked for by
    digest. Raises `ThingNotFound`, `ThingDeleted`, `BlobNotFound`.
    """
    patch = lines.find(session, Patch, name, lock=True)
    blobs.sizes(session, [signature.digest, *([profile] if profile else [])])
    earlier = session.scalar(
        select(PatchVersion).where(
            PatchVersion.patch_id == patch.id,
            PatchVersion.digest == signature.digest,
            PatchVersion.deleted_at.is_(None),
        )
    )
    if earlier is not None:
        return earlier, False
    found = {
        role: lineage.get(role) or _by_digest(session, signature.inputs.get(role))
        for role in ("clean", "robust", "origin")
    }
    patch.head += 1
    version = PatchVersion(
        patch=patch,
        number=patch.head,
        digest=signature.digest,
        size_bytes=signature.size_bytes,
        profile_digest=profile,
        clean=found["clean"],
        robust=found["robust"],
        origin=found["origin"],
        clean_digest=signature.inputs.get("clean"),
        summary=signature.summary,
        tensors=signature.tensors,
        requirement_id=fits.requirement_of(
            session, [Place.from_json(row) for row in signature.tensors]
        ),
        operation_id=operation.id if operation else None,
        created_by=by,
    )
    session.add(version)
    session.flush()
    session.refresh(version)
    return version, True


def _by_digest(session: Session, digest: Digest | None) -> ModelVersion | None:
    if digest is None:
        return None
    query = select(ModelVersion).where(
        ModelVersion.weights_digest == digest, ModelVersion.deleted_at.is_(None)
    )
    return session.scalar(query.order_by(ModelVersion.id).limit(1))


def resolve(session: Session, name: Name, number: int | None) -> PatchVersion:
    """The version of this number, or the newest that is not withdrawn.

    Raises `ThingNotFound` and `ThingDeleted`.
    """
    patch = lines.find(session, Patch, name)
    query = select(PatchVersion).where(PatchVersion.patch_id == patch.id)
    if number is None:
        query = query.where(
            PatchVersion.withdrawn_at.is_(None), PatchVersion.deleted_at.is_(None)
        ).order_by(PatchVersion.number.desc())
    else:
        query = query.where(PatchVersion.number == number)
    found = session.scalar(query.limit(1))
    if found is None:
        what = f"{name}@{number}" if number else f"{name}: no version that is not withdrawn"
        raise errors.ThingNotFound("patch version", what)
    if found.deleted_at is not None:
        raise errors.ThingDeleted("patch version", f"{name}@{number}")
    return found


def versions(
    session: Session, name: Name, *, before: int | None, limit: int
) -> Sequence[PatchVersion]:
    """Some living versions, newest first, before number `before`."""
    patch = lines.find(session, Patch, name)
    query = select(PatchVersion).where(
        PatchVersion.patch_id == patch.id, PatchVersion.deleted_at.is_(None)
    )
    if before is not None:
        query = query.where(PatchVersion.number < before)
    query = query.options(*(selectinload(role).lazyload(ModelVersion.files) for role in LINEAGE))
    return session.scalars(query.order_by(PatchVersion.number.desc()).limit(limit)).all()


def listed(
    session: Session,
    *,
    words: str,
    label: str | None,
    base: Name | None,
    after: str | None,
    limit: int,
) -> Sequence[Patch]:
    """Some patches by key, behind key `after`; `base` keeps those extracted on that model."""
    query = lines.matching(select(Patch), Patch, words=words, label=label)
    if base is not None:
        query = query.where(_extracted_on(base))
    if after is not None:
        query = query.where(Patch.key > after)
    return session.scalars(query.order_by(Patch.key).limit(limit)).all()


def _extracted_on(base: Name) -> ColumnElement[bool]:
    return exists().where(
        PatchVersion.patch_id == Patch.id,
        PatchVersion.deleted_at.is_(None),
        PatchVersion.clean_version_id == ModelVersion.id,
        ModelVersion.model_id == Model.id,
        Model.key == base.key,
    )


# ── files made elsewhere ─────────────────────────────────────────────────────────────────────


def request_publication(
    session: Session,
    name: Name,
    blob: Digest,
    profile: Digest | None,
    *,
    by: Principal,
    limits: operations.Limits,
) -> PatchVersion | Operation:
    """Ask for a patch file made elsewhere to be decoded and then published.

    Answers the version at once where this very file is one already.
    Raises `ThingNotFound`, `BlobNotFound`, `QueueFull`.
    """
    patch = lines.find(session, Patch, name)
    sizes = blobs.sizes(session, [blob, *([profile] if profile else [])])
    known = session.scalar(
        select(PatchVersion).where(
            PatchVersion.patch_id == patch.id,
            PatchVersion.digest == blob,
            PatchVersion.deleted_at.is_(None),
        )
    )
    if known is not None:
        return known
    return operations.request(
        session,
        VERIFY,
        f"{name}: check and publish a patch file",
        {"patch": str(name), "blob": blob, "size_bytes": sizes[blob], "profile": profile},
        by=by,
        on=queue.CPU,
        limits=limits,
    )


def verification(request: Mapping[str, Any]) -> tuple[Digest, int]:
    """Which blob an operation is to check: its digest and size in bytes."""
    return Digest(request["blob"]), int(request["size_bytes"])


def record_verified(session: Session, operation: Operation, signature: Signature) -> dict[str, Any]:
    """Publish a file that a worker has decoded in full; answers the operation's result."""
    namespace, _, name = str(operation.request["patch"]).partition("/")
    version, _ = publish(
        session,
        Name(namespace, name),
        signature,
        profile=operation.request["profile"],
        operation=operation,
        by=operation.created_by,
        lineage={},
    )
    return published(version)


def published(version: PatchVersion) -> dict[str, Any]:
    """The result of an operation that published a version."""
    path = f"/v1/patches/{version.patch.full_name}/versions/{version.number}"
    return {
        "patch": version.patch.full_name,
        "version": version.number,
        "digest": version.digest,
        "size_bytes": version.size_bytes,
        "links": {"version": path, "file": f"{path}/file"}
        | ({"profile": f"{path}/profile"} if version.profile_digest else {}),
    }

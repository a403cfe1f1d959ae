"""Base models: publish versions, find them, and read what their files hold."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.blobs import WeightHeader
from service.db.tables.models import Model, ModelFile, ModelVersion
from service.layout import fileset
from service.layout.fileset import is_weights
from service.layout.header import Header, parse
from service.names import Digest, Name, Reference, digest_of_json, version_number, weights_digest
from service.registry import aliases, blobs, fits, lines
from service.registry.access import Principal

Order = Sequence[str | tuple[str, str]]
"""Tensors as data passes them: by name, or by (path, name) where several files hold that name."""


def unread_headers(session: Session, files: Mapping[str, Digest]) -> list[str]:
    """The paths of weight files whose header no publication has read yet."""
    weights = {path: digest for path, digest in files.items() if is_weights(path)}
    query = select(WeightHeader.digest).where(WeightHeader.digest.in_(set(weights.values())))
    known = set(session.scalars(query))
    return [path for path, digest in weights.items() if digest not in known]


def keep_headers(session: Session, read: Mapping[Digest, Header]) -> None:
    """Keep headers of weight files, so that no publication reads them again."""
    for digest, header in read.items():
        row = {"digest": digest, "size_bytes": header.file_size, "raw": header.raw}
        session.execute(insert(WeightHeader).values(**row).on_conflict_do_nothing())


@dataclass(frozen=True, slots=True)
class Source:
    """What a version was converted from: `digest` over its files, `told` to whoever asks."""

    digest: Digest
    told: Mapping[str, Any]


def publish(
    session: Session,
    name: Name,
    files: Mapping[str, Digest],
    read: Mapping[Digest, Header] | None = None,
    *,
    by: Principal,
    order: Order | None = None,
    source: Source | None = None,
) -> tuple[ModelVersion, bool]:
    """Publish files as the model's next version; answers whether it is new.

    `read` holds headers of weight files that are not kept yet, `order` the names of tensors in
    forward order. The same files again are the same version, unless another order comes with them.
    Raises `BlobNotFound`, `BadFileSet`, `BadForwardOrder`, `ThingNotFound`.
    """
    fileset.check_paths(files)
    sizes = blobs.sizes(session, files.values())
    model = lines.find(session, Model, name, lock=True)
    table = {path: (digest, sizes[digest]) for path, digest in files.items()}
    everything = digest_of_json({path: list(entry) for path, entry in table.items()})
    keep_headers(session, read or {})
    known = headers_of(session, table)
    addresses = None if order is None else addressed(order, known)
    earlier = _published(session, model, everything, addresses)
    if earlier is not None:
        return earlier, False
    model.head += 1
    version = ModelVersion(
        model=model,
        number=model.head,
        weights_digest=weights_digest({p: e for p, e in table.items() if is_weights(p)}),
        files_digest=everything,
        size_bytes=sum(size for _, size in table.values()),
        created_by=by.id,
        forward_order=addresses,
        conversion=None if source is None else dict(source.told),
        source_digest=None if source is None else source.digest,
        files=[
            ModelFile(path=path, digest=digest, size_bytes=size, is_weights=is_weights(path))
            for path, (digest, size) in sorted(table.items())
        ],
    )
    version.architecture_id = fits.architecture_of(session, known)
    session.add(version)
    session.flush()
    session.refresh(version)
    aliases.advance(session, model, version.number, by=by)
    return version, True


def _published(
    session: Session, model: Model, files_digest: Digest, order: list[list[str]] | None
) -> ModelVersion | None:
    """The newest living version of these files; with an order, one that has just that."""
    query = select(ModelVersion).where(
        ModelVersion.model_id == model.id,
        ModelVersion.files_digest == files_digest,
        ModelVersion.deleted_at.is_(None),
    )
    if order is not None:
        query = query.where(ModelVersion.forward_order == order)
    return session.scalar(query.order_by(ModelVersion.number.desc()).limit(1))


def converted_from(session: Session, name: Name, source: Digest) -> ModelVersion | None:
    """The newest living version that was converted from these files; raises `ThingNotFound`."""
    model = lines.find(session, Model, name)
    query = select(ModelVersion).where(
        ModelVersion.model_id == model.id,
        ModelVersion.source_digest == source,
        ModelVersion.deleted_at.is_(None),
    )
    return session.scalar(query.order_by(ModelVersion.number.desc()).limit(1))


# ── forward order ────────────────────────────────────────────────────────────────────────────


def addressed(order: Order, headers: Mapping[str, Header]) -> list[list[str]]:
    """[path, name] of each tensor that an order names; raises `BadForwardOrder`.

    What stands alone must be the name of one tensor.
    """
    places: dict[str, list[str]] = {}
    for path, header in headers.items():
        for name in header.names:
            places.setdefault(name, []).append(path)
    found: dict[tuple[str, str], None] = {}
    for entry in order:
        address = _address(entry, places)
        if address in found:
            raise errors.BadForwardOrder(f"it names tensor {address[1]!r:.200} twice")
        found[address] = None
    return [list(address) for address in found]


def _address(entry: str | Sequence[str], places: Mapping[str, list[str]]) -> tuple[str, str]:
    """The path and the name that an entry of an order means."""
    if not isinstance(entry, str):
        path, name = entry
        if path not in places.get(name, ()):
            raise errors.BadForwardOrder(f"there is no tensor {name!r:.200} in {path!r:.200}")
        return path, name
    paths = places.get(entry, [])
    if len(paths) != 1:
        how = f"in {len(paths)} files; give [path, name]" if paths else "not there"
        raise errors.BadForwardOrder(f"tensor {entry!r:.200} is {how}")
    return paths[0], entry


def recorded_order(versions: Sequence[ModelVersion | None]) -> tuple[str, ...] | None:
    """The names of tensors in forward order, as the first version has them that knows.

    A name that several files hold stands where it is first met.
    """
    for version in versions:
        if version is not None and version.forward_order is not None:
            return tuple(dict.fromkeys(name for _, name in version.forward_order))
    return None


def listed(
    session: Session,
    *,
    words: str,
    namespace: str | None,
    labels: Sequence[str],
    licenses: Sequence[str],
    after: str | None,
    limit: int,
) -> Sequence[Model]:
    """Some living models in the order of their keys, behind key `after`.

    They have every one of the labels, and of the licences.
    """
    query = lines.matching(select(Model), Model, words=words, label=None)
    query = query.where(*(func.lower(Model.license) == each.lower() for each in licenses))
    query = query.where(Model.labels.contains(labels)) if labels else query
    if namespace is not None:
        query = query.where(func.lower(Model.namespace) == namespace.lower())
    if after is not None:
        query = query.where(Model.key > after)
    return session.scalars(query.order_by(Model.key).limit(limit)).all()


def version(session: Session, name: Name, number: int) -> ModelVersion:
    """The version of this number; raises `ThingNotFound` and `ThingDeleted`."""
    model = lines.find(session, Model, name)
    found = session.scalar(
        select(ModelVersion).where(ModelVersion.model_id == model.id, ModelVersion.number == number)
    )
    if found is None:
        raise errors.ThingNotFound("version", f"{name}@{number}")
    if found.deleted_at is not None:
        raise errors.ThingDeleted("version", f"{name}@{number}")
    return found


def resolve(session: Session, reference: Reference) -> ModelVersion:
    """The version that a reference without patches names; without a revision, alias `main`.

    Raises `ThingNotFound` and `ThingDeleted`.
    """
    revision = reference.revision or aliases.MAIN
    number = version_number(revision)
    if number is None:
        model = lines.find(session, Model, reference.name)
        number = aliases.require(session, model, revision).version_number
        if not number:  # all that it named was deleted
            raise errors.ThingNotFound("version", f"{reference}: the alias names no version")
    return version(session, reference.name, number)


def versions(
    session: Session, name: Name, *, before: int | None, limit: int
) -> Sequence[ModelVersion]:
    """Some living versions, newest first, before number `before`."""
    model = lines.find(session, Model, name)
    query = select(ModelVersion).where(
        ModelVersion.model_id == model.id, ModelVersion.deleted_at.is_(None)
    )
    if before is not None:
        query = query.where(ModelVersion.number < before)
    return session.scalars(query.order_by(ModelVersion.number.desc()).limit(limit)).all()


def headers(session: Session, files: Collection[ModelFile]) -> dict[str, Header]:
    """The headers of weight files, by path."""
    return headers_of(session, {f.path: (Digest(f.digest), f.size_bytes) for f in files})


def headers_of(session: Session, files: Mapping[str, tuple[Digest, int]]) -> dict[str, Header]:
    """The headers of those files, given as (digest, size in bytes) by path, that hold tensors."""
    weights = {path: entry for path, entry in files.items() if is_weights(path)}
    query = select(WeightHeader).where(WeightHeader.digest.in_({d for d, _ in weights.values()}))
    raw = {row.digest: row.raw for row in session.scalars(query)}
    return {path: parse(raw[digest], size, path) for path, (digest, size) in weights.items()}


def file(version: ModelVersion, path: str) -> ModelFile:
    """The version's file of this path; raises `ThingNotFound`."""
    for found in version.files:
        if found.path == path:
            return found
    raise errors.ThingNotFound("file", f"{version.reference}/{path}")


def weight_file(version: ModelVersion, path: str | None) -> ModelFile:
    """The weight file of this path, or the only one; raises `ThingNotFound`, `SeveralFiles`."""
    if path is not None:
        found = file(version, path)
        if not found.is_weights:
            raise errors.ThingNotFound("weight file", f"{version.reference}/{path}")
        return found
    weights = version.weight_files
    if len(weights) != 1:
        raise errors.SeveralFiles([f.path for f in weights])
    return weights[0]

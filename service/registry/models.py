"""Base models: publish versions, find them, and read what their files hold."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.blobs import WeightHeader
from service.db.tables.models import Model, ModelFile, ModelVersion
from service.layout.header import Header, parse
from service.layout.strict_json import BadJson, json_object
from service.names import Digest, Name, Reference, digest_of_json, version_number, weights_digest
from service.registry import aliases, blobs, fits, lines
from service.registry.access import Principal

WEIGHTS: Final = ".safetensors"
INDEX: Final = ".safetensors.index.json"
_REFUSED: Final = {
    (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"): "a pickle",
    (".onnx",): "an ONNX model",
    (".gguf", ".ggml"): "a GGUF model",
    (".h5", ".hdf5", ".keras"): "an HDF5 model",
    (".msgpack",): "a Flax model",
}
_SEGMENT = re.compile(r"[^\x00-\x1f\x7f/\\:*?\"<>|]{1,255}")


def is_weights(path: str) -> bool:
    """Whether a file of this path holds tensors."""
    return path.endswith(WEIGHTS)


def check_paths(paths: Collection[str]) -> None:
    """Check the paths of a version's files; raises `BadFileSet` and `UnsupportedFormat`."""
    for path in paths:
        parts = path.split("/")
        if not all(_SEGMENT.fullmatch(part) and part not in {".", ".."} for part in parts):
            raise errors.BadFileSet(f"{path[:200]!r} is not a plain relative path")
        for endings, form in _REFUSED.items():
            if path.lower().endswith(endings):
                raise errors.UnsupportedFormat(path, form, "save its weights as safetensors")
    if len({path.lower() for path in paths}) != len(paths):
        raise errors.BadFileSet("two paths differ in case alone")
    if not any(is_weights(path) for path in paths):
        raise errors.BadFileSet(f"none of them ends in {WEIGHTS}; there are no weights to keep")


def unread_headers(
    session: Session, files: Mapping[str, Digest]
) -> tuple[dict[Digest, int], list[str]]:
    """Sizes of all blobs, and the paths whose header no publication has read yet."""
    sizes = blobs.sizes(session, files.values())
    weights = {path: digest for path, digest in files.items() if is_weights(path)}
    query = select(WeightHeader.digest).where(WeightHeader.digest.in_(set(weights.values())))
    known = set(session.scalars(query))
    return sizes, [path for path, digest in weights.items() if digest not in known]


def check_index(path: str, text: bytes, headers: Mapping[str, Header]) -> None:
    """Check that a sharded set's index agrees with its shards; raises `BadFileSet`.

    `headers` holds every weight file by path; the index names shards beside itself.
    """
    try:
        weight_map = json_object(text)["weight_map"]
        pairs = [(str(name), str(shard)) for name, shard in weight_map.items()]
    except (BadJson, KeyError, AttributeError) as error:
        raise errors.BadFileSet(f"index {path} has no weight_map object") from error
    folder = path.rpartition("/")[0]
    for name, shard in pairs:
        full = f"{folder}/{shard}" if folder else shard
        if full not in headers:
            raise errors.BadFileSet(f"index {path} names the shard {shard!r}, which is missing")
        if name not in headers[full]:
            raise errors.BadFileSet(f"index {path} puts tensor {name!r} into {shard!r}: not there")


def publish(
    session: Session,
    name: Name,
    files: Mapping[str, Digest],
    read: Mapping[Digest, Header],
    *,
    by: Principal,
) -> tuple[ModelVersion, bool]:
    """Publish files as the model's next version; answers whether it is new.

    `read` holds the headers that `unread_headers` asked for. The same files again are the same
    version. Raises `BlobNotFound`, `BadFileSet`, `ThingNotFound`.
    """
    check_paths(files)
    sizes = blobs.sizes(session, files.values())
    model = lines.find(session, Model, name, lock=True)
    table = {path: (digest, sizes[digest]) for path, digest in files.items()}
    everything = digest_of_json({path: list(entry) for path, entry in table.items()})
    earlier = session.scalar(
        select(ModelVersion).where(
            ModelVersion.model_id == model.id,
            ModelVersion.files_digest == everything,
            ModelVersion.deleted_at.is_(None),
        )
    )
    if earlier is not None:
        return earlier, False
    for digest, header in read.items():
        row = {"digest": digest, "size_bytes": header.file_size, "raw": header.raw}
        session.execute(insert(WeightHeader).values(**row).on_conflict_do_nothing())
    model.head += 1
    version = ModelVersion(
        model=model,
        number=model.head,
        weights_digest=weights_digest({p: e for p, e in table.items() if is_weights(p)}),
        files_digest=everything,
        size_bytes=sum(size for _, size in table.values()),
        created_by=by.id,
        files=[
            ModelFile(path=path, digest=digest, size_bytes=size, is_weights=is_weights(path))
            for path, (digest, size) in sorted(table.items())
        ],
    )
    version.architecture_id = fits.architecture_of(session, headers(session, version.weight_files))
    session.add(version)
    session.flush()
    session.refresh(version)
    aliases.advance(session, model, version.number, by=by)
    return version, True


def listed(
    session: Session,
    *,
    words: str,
    namespace: str | None,
    labels: Sequence[str],
    after: str | None,
    limit: int,
) -> Sequence[Model]:
    """Some living models in the order of their keys, behind key `after`; they have every label."""
    query = lines.matching(select(Model), Model, words=words, label=None)
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
    query = select(WeightHeader).where(WeightHeader.digest.in_({f.digest for f in files}))
    raw = {row.digest: row for row in session.scalars(query)}
    return {file.path: parse(raw[file.digest].raw, file.size_bytes, file.path) for file in files}


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

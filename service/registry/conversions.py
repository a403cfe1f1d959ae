"""Versions whose files include PyTorch checkpoints: ask for the conversion, record what came of it.

The version holds what the checkpoints became; the checkpoints themselves are no part of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from service import queue
from service.db.tables.models import Model, ModelVersion
from service.db.tables.operations import Operation
from service.layout import fileset
from service.layout.header import Header
from service.names import Digest, Name, digest_of_json, model_name
from service.registry import blobs, lines, models, operations
from service.registry.access import Principal
from service.registry.models import Order, Source

CONVERT = "convert"


@dataclass(frozen=True, slots=True)
class Given:
    """A file as it was given, and the path of what it becomes."""

    path: str
    target: str
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Weights:
    """What a checkpoint became: a blob by now; `order` and `tied` as the checkpoint has them."""

    given: str
    path: str
    digest: Digest
    header: Header
    order: Sequence[str]
    tied: Mapping[str, str]
    left_out: Sequence[str]
    guards: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Index:
    """The index of a set of converted shards: a blob by now."""

    path: str
    digest: Digest
    size_bytes: int


def needed(paths: Iterable[str]) -> bool:
    """Whether files of these paths must be converted before they make a version."""
    return any(fileset.is_checkpoint(path) for path in paths)


def request(
    session: Session,
    name: Name,
    files: Mapping[str, Digest],
    order: Order | None,
    *,
    by: Principal,
    limits: operations.Limits,
) -> ModelVersion | Operation:
    """Ask for the checkpoints among `files` to be converted, and all of it to be published.

    Answers the version at once where these very files became one before.
    Raises `ThingNotFound`, `BlobNotFound`, `QueueFull`.
    """
    lines.find(session, Model, name)
    sizes = blobs.sizes(session, files.values())
    table = {path: [digest, sizes[digest]] for path, digest in files.items()}
    body = {"model": str(name), "files": table, "forward_order": order}
    known = models.converted_from(session, name, _source_digest(body))
    if known is not None:
        return known
    count = sum(fileset.is_checkpoint(path) for path in files)
    what = "a PyTorch checkpoint" if count == 1 else f"{count} PyTorch checkpoints"
    return operations.request(
        session, CONVERT, f"{name}: convert {what}", body, by=by, on=queue.CPU, limits=limits
    )


def _source_digest(request: Mapping[str, Any]) -> Digest:
    return digest_of_json({"files": request["files"], "forward_order": request["forward_order"]})


def leaving_out(files: Mapping[str, Digest]) -> Source | None:
    """What is to be told where files need no conversion but some are no part of a version."""
    if not any(fileset.is_training_state(path) for path in files):
        return None
    return Source(digest_of_json(dict(files)), told_of(files, ()))


def inputs(request: Mapping[str, Any]) -> tuple[list[Given], list[Given]]:
    """The checkpoints to convert, in forward order of a sharded set, and the indexes of sets."""
    given = [
        Given(path, fileset.converted(path), Digest(digest), int(size))
        for path, (digest, size) in sorted(request["files"].items())
        if fileset.is_checkpoint(path) or fileset.is_checkpoint_index(path)
    ]
    indexes = [each for each in given if fileset.is_checkpoint_index(each.path)]
    return [each for each in given if each not in indexes], indexes


def record(
    session: Session, operation: Operation, weights: Sequence[Weights], indexes: Sequence[Index]
) -> dict[str, Any]:
    """Publish what the checkpoints became; answers the operation's result.

    `operation` is held by the caller, so that the first attempt to record wins.
    """
    body = operation.request
    for each in weights:
        blobs.record(session, each.digest, each.header.file_size)
    for index in indexes:
        blobs.record(session, index.digest, index.size_bytes)
    files = {
        path: Digest(digest)
        for path, (digest, _) in body["files"].items()
        if fileset.published(path) == path
    }
    files |= {each.path: each.digest for each in weights}
    files |= {each.path: each.digest for each in indexes}
    told = told_of(body["files"], weights)
    version, _ = models.publish(
        session,
        model_name(body["model"]),
        files,
        {each.digest: each.header for each in weights},
        by=Principal(operation.created_by, frozenset()),
        order=body["forward_order"] or _order(files, weights),
        source=Source(_source_digest(body), told),
    )
    path = f"/v1/models/{version.model.full_name}/versions/{version.number}"
    return {
        "model": version.model.full_name,
        "version": version.number,
        "size_bytes": version.size_bytes,
        "links": {"version": path, "tensors": f"{path}/tensors"},
        "tied": len(told["tied"]),
        "left_out": told["left_out"],
        "guards": sorted(set.intersection(*({*each.guards} for each in weights))),
    }


def _order(files: Mapping[str, Digest], weights: Sequence[Weights]) -> Order | None:
    """The order that the checkpoints recorded, unless there are tensors that they know nothing of.

    Shards are written front to back, so the order of their paths is that of their tensors.
    """
    if {each.path for each in weights} != {path for path in files if fileset.is_weights(path)}:
        return None
    return [(each.path, name) for each in weights for name in each.order]


def told_of(files: Mapping[str, Any], weights: Sequence[Weights]) -> dict[str, Any]:
    """What a version tells of its making: the files it came from, tied names, what is not in it."""
    left_out = [{"path": p, "name": None} for p in files if fileset.is_training_state(p)]
    return {
        "converted": {
            each.path: {"path": each.given, "digest": files[each.given][0]} for each in weights
        },
        "tied": [
            {"path": each.path, "name": name, "same_as": kept}
            for each in weights
            for name, kept in each.tied.items()
        ],
        "left_out": left_out
        + [{"path": each.given, "name": name} for each in weights for name in each.left_out],
    }

"""Publishing a version of a model: read what its blobs begin with, check it, record it."""

from collections.abc import Mapping

from fastapi import Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from service import errors
from service.api.v1 import operations as operation_routes
from service.api.v1 import views
from service.db.tables.models import Model, ModelVersion
from service.http.deps import Parts
from service.layout import checkpoint, fileset
from service.layout.header import Header, read_header
from service.names import Digest, Name
from service.registry import blobs, conversions, lines, models
from service.registry.access import Principal
from service.registry.models import Order

Files = Mapping[str, Digest]
Sizes = Mapping[Digest, int]


def publish(
    parts: Parts, name: Name, files: Files, order: Order | None, *, by: Principal
) -> Response:
    """Publish files: 201, 200 where they are a version already, 202 where some are converted first.

    Raises `BadFileSet`, `UnsupportedFormat`, `NotSafetensors`, `BlobNotFound`, `BadForwardOrder`,
    `ThingNotFound`, `QueueFull`.
    """
    fileset.check_paths(files)
    with parts.sessions.begin() as session:
        lines.find(session, Model, name)
        sizes = blobs.sizes(session, files.values())
        unread = models.unread_headers(session, files)
    # Read outside any transaction: on S3 each header is a request or two.
    read = {files[path]: _header(parts, path, files[path], sizes) for path in unread}
    indexes = {p: _index(parts, p, files[p], sizes) for p in files if fileset.is_index(p)}
    for path in filter(fileset.is_checkpoint, files):
        _check_start(parts, path, files[path], sizes)
    for path in filter(fileset.is_checkpoint_index, files):
        named, _ = fileset.read_index(path, _index(parts, path, files[path], sizes))
        fileset.check_named(path, named, files)
    with parts.sessions.begin() as session:
        models.keep_headers(session, read)
        known = models.headers_of(session, {p: (d, sizes[d]) for p, d in files.items()})
        fileset.check_shards(indexes, {path: header.by_name for path, header in known.items()})
        return _answer(session, parts, name, files, order, by)


def _answer(
    session: Session, parts: Parts, name: Name, files: Files, order: Order | None, by: Principal
) -> Response:
    if not conversions.needed(files):
        kept = {path: digest for path, digest in files.items() if fileset.published(path)}
        source = conversions.leaving_out(files)
        version, new = models.publish(session, name, kept, by=by, order=order, source=source)
        return _shown(version, 201 if new else 200)
    made = conversions.request(session, name, files, order, by=by, limits=parts.limits)
    if isinstance(made, ModelVersion):
        return _shown(made, 200)
    session.refresh(made)
    return operation_routes.accepted(made)


def _shown(version: ModelVersion, status: int) -> Response:
    location = f"/v1/models/{version.model.full_name}/versions/{version.number}"
    shown = views.model_version(version).model_dump(mode="json")
    return JSONResponse(shown, status, {"Location": location})


def _header(parts: Parts, path: str, digest: Digest, sizes: Sizes) -> Header:
    return read_header(lambda start, end: parts.store.read(digest, start, end), sizes[digest], path)


def _index(parts: Parts, path: str, digest: Digest, sizes: Sizes) -> bytes:
    if sizes[digest] > fileset.MAX_INDEX_BYTES:
        limit = fileset.MAX_INDEX_BYTES
        raise errors.BadFileSet(f"index {path} is longer than {limit} bytes")
    return parts.store.read(digest, 0, sizes[digest])


def _check_start(parts: Parts, path: str, digest: Digest, sizes: Sizes) -> None:
    """Refuse at once what a worker would refuse later; raises `UnsupportedFormat`."""
    start = parts.store.read(digest, 0, min(checkpoint.START_BYTES, sizes[digest]))
    checkpoint.form_of(start, path)

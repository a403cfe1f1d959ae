"""What the Hub has and this service has not: everything that writes, and other kinds of things."""

from typing import Final

from fastapi import APIRouter

from service.hub.refusals import HubError, repo_not_found

router = APIRouter()

_READS: Final = ["GET", "HEAD"]
_CHANGES: Final = ["POST", "PUT", "PATCH", "DELETE"]
_READ_ONLY: Final = (
    "the Hub API of this service is for reading; publish a model with `patchbay push`, "
    "a patch with `patchbay extract` or `patchbay publish`"
)
_NO_SUCH_PART: Final = "this service has no such part of the Hub API"


@router.api_route("/api/{rest:path}", methods=_CHANGES)
@router.api_route("/{namespace}/{name}.git/{rest:path}", methods=[*_READS, *_CHANGES])
async def refuse_to_write(rest: str) -> None:
    """Refuse to create, upload, commit, tag, move or delete."""
    _ = rest
    raise HubError(403, None, _READ_ONLY)


@router.api_route("/api/models/{namespace}/{name}/{rest:path}", methods=_READS)
async def know_no_such_part(rest: str) -> None:
    """Say that there is no such thing about a model, whether or not there is the model."""
    _ = rest
    raise HubError(404, None, _NO_SUCH_PART)


@router.api_route("/api/{kind}", methods=_READS)
@router.api_route("/api/{kind}/{rest:path}", methods=_READS)
@router.api_route("/{name}/resolve/{rest:path}", methods=_READS)
@router.api_route("/{kind}/{namespace}/{name}/resolve/{rest:path}", methods=_READS)
async def know_no_other(rest: str = "", kind: str = "models") -> None:
    """Say that there are models of a namespace alone: no data sets, spaces or bare names."""
    _ = rest
    if kind not in {"models", "datasets", "spaces", "kernels"}:
        raise HubError(404, None, _NO_SUCH_PART)
    raise repo_not_found("this service has models alone, each named namespace/name")

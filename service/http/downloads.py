"""Routes that send the bytes of a plan: GET and HEAD, with every answer declared."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from fastapi import APIRouter, Response

from service import errors
from service.http.problems import answers

Endpoint = TypeVar("Endpoint", bound=Callable[..., Response | Awaitable[Response]])

_BINARY: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def download(
    router: APIRouter,
    path: str,
    *,
    name: str,
    responses: Mapping[int | str, dict[str, Any]],
    content: Mapping[str, Any] = _BINARY,
    description: str | None = None,
    redirects: bool = False,
) -> Callable[[Endpoint], Endpoint]:
    """Register a path function that answers with a `PlanResponse`, for GET and for HEAD.

    With `redirects`, a GET may be answered as `PlainResponse` does.
    """
    whole: dict[int | str, dict[str, Any]] = {
        **answers(errors.StoreUnavailable),
        **responses,
        200: {"description": "The whole file.", "content": content},
        304: {"description": "The caller has it already (`If-None-Match`)."},
    }
    ranged: dict[int | str, dict[str, Any]] = {
        **answers(errors.BadRange),
        206: {"description": "The range that was asked for.", "content": content},
    }

    if redirects:
        ranged[307] = {"description": "The object store hands it out: `Location` is its URL."}

    def register(function: Endpoint) -> Endpoint:
        for method, called, declared in (
            ("GET", name, whole | ranged),
            ("HEAD", f"{name}.head", whole),
        ):
            router.add_api_route(
                path,
                function,
                methods=[method],
                name=called,
                response_class=Response,
                responses=declared,
                description=description,
            )
        return function

    return register

"""Pull-through: the patched file of any recipe, built where need be."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api.v1.recipes import UNRESOLVED
from service.http.conditional import Wait
from service.http.deps import Config, ModelPath, Reader
from service.http.downloads import download
from service.http.problems import answers
from service.http.serving import UNSENT, found, resolving, sent
from service.names import Name
from service.registry.plans import Part

router = APIRouter(prefix="/weights", tags=["weights"])

UNPULLED = (*UNRESOLVED, *UNSENT)
"""What pulling a recipe's file may raise."""

RecipeQuery = Annotated[
    str,
    Query(
        max_length=4000,
        description="`main+fog=0.5`; a space is read as `+`. Without patches: the base itself.",
        examples=["main+fog=0.5"],
    ),
]


def _reference(name: Name, recipe: str) -> str:
    return f"{name}@{recipe.replace(' ', '+')}"


@download(router, "/{namespace}/{name}", name="pull", responses=answers(*UNPULLED))
async def pull(
    name: ModelPath,
    request: Request,
    parts: Config,
    caller: Reader,
    wait_s: Wait,
    recipe: RecipeQuery = "main",
) -> Response:
    """Download the patched weights of a model that has one weight file."""
    resolve = resolving(_reference(name, recipe))
    file = await found(parts, resolve, caller, part=Part.WEIGHTS, path=None, wait_s=wait_s)
    return sent(request, parts, file)


@download(router, "/{namespace}/{name}/{path:path}", name="pull_file", responses=answers(*UNPULLED))
async def pull_file(
    name: ModelPath,
    path: str,
    request: Request,
    parts: Config,
    caller: Reader,
    wait_s: Wait,
    recipe: RecipeQuery = "main",
) -> Response:
    """Download one patched weight file."""
    resolve = resolving(_reference(name, recipe))
    file = await found(parts, resolve, caller, part=Part.WEIGHTS, path=path, wait_s=wait_s)
    return sent(request, parts, file)

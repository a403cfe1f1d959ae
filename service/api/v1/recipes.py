"""Recipes: resolved to exact versions, checked against their base, named by their digest."""

from fastapi import APIRouter, Response

from service import errors
from service.api.v1 import views
from service.http.deps import DbSession, DigestPath, Reader
from service.http.problems import answers
from service.registry import recipes
from service.schemas.recipes import RecipeView, ResolveRecipe

router = APIRouter(prefix="/recipes", tags=["recipes"])

UNRESOLVED = (
    errors.BadReference,
    errors.BadRecipe,
    errors.BadName,
    errors.BadScale,
    errors.TwoVersionsOfOnePatch,
    errors.ThingNotFound,
    errors.ThingDeleted,
    errors.DoesNotFit,
    errors.NotTheSameBase,
)
"""What reading, resolving and checking a recipe may raise."""


@router.post("", name="resolve", responses=answers(*UNRESOLVED))
def resolve(
    body: ResolveRecipe, session: DbSession, caller: Reader, response: Response
) -> RecipeView:
    """Resolve a recipe to exact versions and check that every patch fits the base."""
    resolved = recipes.resolve(session, body.recipe, require=body.require)
    if not caller.is_anonymous:
        recipes.save(session, resolved, by=caller)
    response.headers["Content-Location"] = f"/v1/recipes/{resolved.canonical.digest}"
    return views.recipe(resolved)


@router.get("/{digest}", name="read", responses=answers(errors.BadDigest, errors.ThingNotFound))
def read(digest: DigestPath, session: DbSession, caller: Reader) -> RecipeView:
    """Read a recipe that was made before, by its digest."""
    return views.recipe(recipes.loaded(recipes.find(session, digest)))

"""Recipes: resolved to exact versions, checked against their base, named by their digest."""

from fastapi import APIRouter, Response

from service import errors
from service.api.v1 import views
from service.api.v1.similarity import STARTED, accepted, check_starter
from service.http.deps import Config, DbSession, DigestPath, Reader
from service.http.problems import answers
from service.registry import comparisons, composition, recipes
from service.schemas.operations import OperationView
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


@router.post(
    "",
    name="resolve",
    response_model=RecipeView,
    responses={
        202: {"description": "A worker compares its patches.", "model": OperationView},
        **answers(*UNRESOLVED, errors.CannotBalance, *STARTED),
    },
)
def resolve(
    body: ResolveRecipe, session: DbSession, parts: Config, caller: Reader, response: Response
) -> RecipeView | Response:
    """Resolve a recipe to exact versions and check that every patch fits the base.

    With `balance` the answer is another recipe, with the scales that were solved for; with
    `interference` it tells how the patches meet. Both are answered at once where the patches were
    compared before; else 202, and the same request once the operation has ended.
    """
    resolved = recipes.resolve(session, body.recipe, require=body.require)
    view = None
    if body.balance or body.interference:
        known = composition.compose(
            session,
            resolved,
            require=body.require,
            balanced=body.balance,
            interference=body.interference,
        )
        if known is None:
            check_starter(caller, parts)
            versions = [part.version for part in resolved.parts]
            asked = comparisons.request(session, versions, by=caller, limits=parts.limits)
            return accepted(session, asked)
        resolved, view = known
    if not caller.is_anonymous:
        recipes.save(session, resolved, by=caller)
    response.headers["Content-Location"] = f"/v1/recipes/{resolved.canonical.digest}"
    told = {"composition": view, "warnings": composition.warnings(resolved, view)}
    return views.recipe(resolved).model_copy(update=told)


@router.get("/{digest}", name="read", responses=answers(errors.BadDigest, errors.ThingNotFound))
def read(digest: DigestPath, session: DbSession, caller: Reader) -> RecipeView:
    """Read a recipe that was made before, by its digest."""
    return views.recipe(recipes.loaded(recipes.find(session, digest)))

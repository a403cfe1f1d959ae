"""Sweeps: many recipes on one base at once."""

from typing import Annotated, Literal

from pydantic import Field

from service.schemas.recipes import BuildView, RecipeBody
from service.schemas.wire import Body, View

MAX_RECIPES = 1000


class RequestSweep(Body):
    """Recipes on one base: objects, reference strings, or recipe digests."""

    recipes: Annotated[list[RecipeBody | str], Field(min_length=1, max_length=MAX_RECIPES)] = Field(
        examples=[["vision/resnet50@3+fog=0.5", "vision/resnet50@3+fog=1"]]
    )
    require: Literal["same_base", "same_architecture"] = "same_architecture"


class SweepView(View):
    """The builds of a sweep, in the order of the request."""

    builds: list[BuildView]

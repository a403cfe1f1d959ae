"""Evaluation results, as they are published and listed."""

from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, Field

from service.schemas.wire import Body, Moment, Scale, View

MAX_RESULTS = 1000

Named = Annotated[
    str,
    Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$"),
]


def _lower(value: str) -> str:
    return value.lower()


DataSet = Annotated[Named, AfterValidator(_lower), Field(examples=["fashion-mnist"])]
Corruption = Annotated[
    Named,
    AfterValidator(_lower),
    Field(description="`clean` for images as they are.", examples=["gaussian-noise"]),
]


class Result(Body):
    """The accuracy of the base with the patch at one scale, on some images."""

    data_set: DataSet
    corruption: Corruption
    severity: Annotated[Decimal, Field(ge=0, le=100, max_digits=6, decimal_places=3)] | None = None
    scale: Scale
    accuracy: float = Field(ge=0, le=1, description="Share of images classified rightly.")
    n: int = Field(ge=1, lt=2**53, description="How many images.")
    seed: int | None = Field(default=None, ge=0, lt=2**53)


class PublishEvaluations(Body):
    """Results of a patch version on one base."""

    base: str = Field(examples=["vision/resnet50@3"])
    results: Annotated[list[Result], Field(min_length=1, max_length=MAX_RESULTS)]


class EvaluationView(View):
    """One result."""

    id: int
    patch: str = Field(description="Reference of the patch version.")
    base: str = Field(description="Reference of the model version.")
    data_set: str
    corruption: str
    severity: float | None
    scale: Scale
    accuracy: float
    standard_error: float = Field(description="Of the accuracy, from n alone: sqrt(p(1-p)/n).")
    n: int
    seed: int | None
    created_by: str
    created_at: Moment

"""What every body shares: strict on the way in, and how names, digests and scales are written."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from service import names

Item = TypeVar("Item")


class Body(BaseModel):
    """A request body: unknown fields are refused, so that a typing error is not a silent no-op."""

    model_config = ConfigDict(extra="forbid")


class View(BaseModel):
    """A response body; clients ignore fields that a later release adds."""

    model_config = ConfigDict(extra="ignore", from_attributes=True)


class Page(View, Generic[Item]):
    """Some items of a list, and the cursor of the next ones."""

    items: list[Item]
    next: str | None = Field(default=None, description="Cursor of the next page; null at the end.")


def _scale(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        return value
    # A float prints as the shortest decimal that names it, which is what the caller wrote; without
    # the exponent that Python writes for 0.00001.
    return names.parse_scale(value if isinstance(value, str) else f"{Decimal(str(value)):f}")


Digest = Annotated[
    str,
    Field(pattern=r"^sha256:[0-9a-f]{64}$", examples=["sha256:" + "0" * 64]),
]
Scale = Annotated[
    Decimal,
    BeforeValidator(_scale, json_schema_input_type=float | str),
    PlainSerializer(float, return_type=float),
    Field(description="A plain decimal, at most 4 places, at most 10 in size; 1 = as extracted."),
]
Label = Annotated[
    str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")
]
Labels = Annotated[list[Label], Field(max_length=32)]
Card = Annotated[str, Field(max_length=256 * 1024, description="Markdown: what it is, for people.")]
License = Annotated[str, Field(max_length=100, description="SPDX identifier.", examples=["MIT"])]
Moment = datetime


class EditLine(Body):
    """The parts of a model or patch to change; what is left out stays as it is."""

    card: Card | None = None
    license: License | None = None
    labels: Labels | None = None


class DescribeLine(Body):
    """What people should know of a model or patch."""

    card: Card = ""
    license: License | None = None
    labels: Labels = []


class LineView(View):
    """A model or a patch: a named line of versions."""

    namespace: str
    name: str
    full_name: str
    card: str
    license: str | None
    labels: list[str]
    revision: int
    head: int = Field(description="The highest version number given so far.")
    created_by: str
    created_at: Moment
    updated_at: Moment


class Withdraw(Body):
    """Why a version should no longer be chosen; it stays readable for those who pinned it."""

    reason: str = Field(default="", max_length=1000)


class Problem(View):
    """An RFC 9457 problem document."""

    type: str = Field(description="/problems/{slug}: a page that explains this kind of problem.")
    title: str
    status: int
    detail: str = Field(description="What is wrong here, and the next step.")
    instance: str = Field(default="", description="The request's id, as in the logs.")
    errors: list[dict[str, Any]] = Field(default=[], description="Fields that are wrong, if any.")


class BlobView(View):
    """A stored blob."""

    digest: Digest
    size_bytes: int

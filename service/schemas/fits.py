"""Which patches fit which bases."""

from typing import Literal

from pydantic import Field

from service.schemas.wire import Digest, View

Fit = Literal["same_base", "same_architecture"]


class FittingPatch(View):
    """A patch version that can be put on the base."""

    patch: str
    version: int
    reference: str
    digest: Digest
    size_bytes: int
    labels: list[str]
    fit: Fit = Field(description="Extracted on these very weights, or fits by its tensors alone.")


class FittingBase(View):
    """A model version that the patch can be put on."""

    model: str
    version: int
    reference: str
    weights_digest: Digest
    fit: Fit = Field(description="The patch was extracted on it, or fits by its tensors alone.")

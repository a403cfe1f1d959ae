"""How alike signatures are: neighbours, matrices, composition, identification."""

from typing import Literal

from pydantic import Field, model_validator

from service.names import MAX_PATCHES
from service.schemas.patches import Energy, First, Named
from service.schemas.wire import Body, Digest, Scale, View

Matrix = list[list[float]]
Cosine = float
SHARE = "Part of its energy that lies in kernels which both hold."


class NeighbourView(View):
    """A version that a version is like, or opposed to."""

    patch: str
    version: int
    reference: str
    labels: list[str]
    cosine: Cosine = Field(description="Over the kernels that both hold; below zero: opposed.")
    exact: bool
    error: float = Field(description="One standard deviation of an estimate at most; 0: exact.")
    own_share: float = Field(description=f"Of the version asked about. {SHARE}")
    other_share: float = Field(description=f"Of the neighbour. {SHARE}")
    same_base: bool


class CompareSet(Body):
    """Patches to compare each with each: references; without @N the newest not withdrawn."""

    patches: list[str] = Field(min_length=2, max_length=MAX_PATCHES, examples=[["vision/fog@2"]])


class SetView(View):
    """A set of patches compared each with each; every matrix in the order of `patches`."""

    patches: list[str]
    cosines: Matrix = Field(description="Over the kernels that both hold; 0: none.")
    shared: Matrix = Field(description="Row i, column j: part of i's energy that j's kernels hold.")
    conflict: list[list[float | None]] = Field(
        description="Share of opposite signs where both are not zero; null: nowhere."
    )


class LayerGram(View):
    """One kernel's part of a Gram matrix."""

    tensor: str
    shape: list[int]
    patches: list[int] = Field(description="Which patches hold it: rows and columns of `gram`.")
    gram: Matrix


class Explained(View):
    """Why the scales are what they are: G a = diag(G) s, for the scales s that were asked for.

    None is turned around or larger than asked for: where that would be, a is the nearest, by G.
    """

    wanted: list[Scale]
    solved: list[Scale] = Field(description="a, rounded to 4 decimal places.")
    reached: list[float | None] = Field(
        description="How far the sum reaches along each signature; 1: as far as that one alone at "
        "the scale that was asked for. null where that is zero."
    )
    condition: float = Field(description="Condition number of G, its diagonal scaled to one.")
    gram: Matrix = Field(description="G: each kernel over the square of its clean weight's norm.")
    layers: list[LayerGram] = Field(description="G kernel by kernel, for 16 patches at most.")
    recipe: str = Field(description="The balanced recipe, plain scales, every version pinned.")


class LayerInterference(View):
    """How two patches of a recipe meet in one kernel."""

    tensor: str
    cosine: Cosine
    conflict: float | None


class PairInterference(View):
    """How two patches of a recipe meet, the signs of their scales included."""

    first: str
    second: str
    cosine: Cosine
    conflict: float | None = Field(
        description="Share of opposite signs where both are not zero; null: nowhere."
    )
    first_share: float = Field(description=f"Of the first. {SHARE}")
    second_share: float = Field(description=f"Of the second. {SHARE}")
    layers: list[LayerInterference] = Field(description="For recipes of 16 patches at most.")


class CompositionView(View):
    """How the patches of a recipe go together."""

    patches: list[str] = Field(description="The order of every list and matrix here.")
    balance: Explained | None = Field(default=None, description="If `balance` was asked for.")
    interference: list[PairInterference] | None = Field(
        default=None, description="If `interference` was asked for: each pair once."
    )


class Identify(Body):
    """What to identify: an uploaded patch file, or a pair of models; nothing is published."""

    blob: Digest | None = Field(default=None, description="A patch file that was uploaded.")
    clean: str | None = Field(default=None, examples=["vision/resnet50@3"])
    robust: str | None = Field(default=None, examples=["vision/unknown@1"])
    origin: str | None = None
    layers: Energy | First | Named | Literal["all"] = Energy(energy=0.85)

    @model_validator(mode="after")
    def _one_of_both(self) -> "Identify":
        pair = self.clean is not None and self.robust is not None
        if (self.blob is not None) == pair or (self.clean is None) != (self.robust is None):
            raise ValueError("give a blob, or a clean and a robust model")
        return self


class LabelRank(View):
    """How near the nearest signature of a label is."""

    label: str
    nearest: str
    cosine: Cosine
    margin: float | None = Field(description="To the nearest patch that lacks the label.")
    patches: int


class PatchRank(View):
    """A patch beside the unknown signature: its nearest version."""

    reference: str
    labels: list[str]
    cosine: Cosine
    error: float
    own_share: float
    other_share: float


class IdentificationView(View):
    """Which corruption it is, and whether to believe it."""

    label: str | None
    second: str | None
    margin: float | None = Field(description="How far the second label is behind.")
    confidence: float = Field(description="Of the labels against each other; not calibrated.")
    trusted: bool
    reasons: list[str] = Field(description="Why it should not be trusted, if so.")
    labels: list[LabelRank]
    patches: list[PatchRank]
    compared: int = Field(description="With how many versions it could be compared.")

"""Recipes, builds, channels."""

from typing import Any, Literal

from pydantic import Field

from service import names
from service.schemas.similarity import CompositionView
from service.schemas.wire import Body, Digest, Moment, Scale, View


class RecipePart(Body):
    """One patch of a recipe; without a version the newest one that is not withdrawn."""

    patch: str = Field(examples=["vision/fog@2"])
    scale: Scale


class RecipeBody(Body):
    """A base and the patches on it."""

    base: str = Field(examples=["vision/resnet50@3"])
    patches: list[RecipePart] = Field(
        default=[],
        # Told here, checked where recipes are resolved: a channel's parts are no request body.
        json_schema_extra={"maxItems": names.MAX_PATCHES},
    )


class ResolveRecipe(Body):
    """A recipe to resolve and check: an object, or a reference such as `ns/model@main+fog=0.5`."""

    recipe: RecipeBody | str
    require: Literal["same_base", "same_architecture"] = "same_architecture"
    balance: bool = Field(
        default=False, description="Solve for scales at which the patches do not interfere."
    )
    interference: bool = Field(default=False, description="Tell how the patches meet, by kernel.")


class RecipePatchView(View):
    """One patch of a resolved recipe."""

    patch: str
    version: int
    digest: Digest
    scale: Scale
    size_bytes: int
    fit: Literal["same_base", "same_architecture"]
    license: str | None


class RecipeView(View):
    """A recipe, resolved to exact versions and named by its digest."""

    digest: Digest
    commit: str = Field(description="The first 40 hex digits: the Hub's revision.")
    base: str
    base_digest: Digest
    reference: str = Field(description="The recipe as a pinned reference string.")
    patches: list[RecipePatchView]
    canonical: dict[str, Any]
    licenses: list[str] = Field(description="Licences of all its parts.")
    size_bytes: int = Field(description="Size of the patched weights.")
    overlay_bytes: int = Field(description="How many bytes of tensors the patches touch.")
    warnings: list[str]
    composition: CompositionView | None = Field(
        default=None, description="If `balance` or `interference` was asked for."
    )


class BuildFileView(View):
    """One weight file of a build."""

    path: str
    size_bytes: int
    base_digest: Digest
    overlay_digest: Digest | None = Field(description="Null: no patch touches this file.")
    overlay_size_bytes: int
    etag: str
    sha256: Digest | None = Field(description="Of the whole file; null until it is computed.")


class BuildView(View):
    """A carried-out recipe."""

    id: str
    state: Literal["building", "ready", "expired"]
    recipe: RecipeView
    operation: str | None
    files: list[BuildFileView]
    created_at: Moment
    ready_at: Moment | None


class ManifestFile(View):
    """One file of a build, with the tensors that its overlay changes."""

    path: str
    size_bytes: int
    base_digest: Digest
    overlay_digest: Digest | None
    etag: str
    sha256: Digest | None = Field(description="Of the whole file; null until it is computed.")
    tensors: list[str]


class ManifestView(View):
    """What a build consists of; enough to check a file that was patched elsewhere."""

    recipe: RecipeView
    files: list[ManifestFile]


class RequestBuild(Body):
    """The recipe to build: an object, a reference string, or a recipe digest."""

    recipe: RecipeBody | str
    require: Literal["same_base", "same_architecture"] = "same_architecture"


class PointChannel(Body):
    """The recipe that a channel should point at."""

    recipe: RecipeBody | str
    require: Literal["same_base", "same_architecture"] = "same_architecture"


class Rescale(Body):
    """A new scale of a patch that the channel's recipe holds; 0 keeps it listed but off."""

    scale: Scale


class Revert(Body):
    """Where a channel should go back to: the number of a move, or the clean base."""

    to: int | Literal["clean"]


class EnteredPart(View):
    """A patch of a channel as entered, zeros included."""

    patch: str
    version: int
    scale: Scale


class MoveView(View):
    """One entry of a channel's history."""

    number: int
    action: str
    base: str
    entered: list[EnteredPart]
    recipe_digest: Digest
    reverted_to: int | None
    moved_by: str
    moved_at: Moment


class ChannelView(View):
    """A mutable name that points at a recipe."""

    namespace: str
    name: str
    full_name: str
    move: int = Field(description="Number of the last move; the ETag.")
    head: MoveView
    created_by: str
    created_at: Moment

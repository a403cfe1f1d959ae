"""Models, versions, aliases."""

from typing import Annotated

from pydantic import Field

from service.schemas.wire import Body, Digest, LineView, Moment, View

FilePath = Annotated[str, Field(min_length=1, max_length=512)]


class ModelView(LineView):
    """A named line of base weights."""


class PublishModelVersion(Body):
    """The files of a version: blobs that were uploaded before."""

    files: Annotated[dict[FilePath, Digest], Field(min_length=1, max_length=10_000)] = Field(
        examples=[{"model.safetensors": "sha256:" + "0" * 64}]
    )


class ModelFileView(View):
    """One file of a version."""

    path: str
    digest: Digest
    size_bytes: int
    is_weights: bool


class ModelVersionView(View):
    """An immutable published state of a model."""

    model: str
    number: int
    reference: str
    weights_digest: Digest = Field(description="Version digest: over the weight files alone.")
    size_bytes: int
    files: list[ModelFileView]
    created_by: str
    created_at: Moment
    withdrawn_at: Moment | None
    withdrawn_reason: str | None


class TensorView(View):
    """One tensor of a version, as its file's header describes it."""

    path: str
    name: str
    dtype: str
    shape: list[int]
    size_bytes: int


class SetAlias(Body):
    """The version that an alias should name."""

    version: int = Field(ge=1)


class AliasView(View):
    """A mutable name of a version."""

    name: str
    version: int
    move: int = Field(description="Number of the last move; the ETag.")


class AliasMoveView(View):
    """One entry of an alias's history."""

    move: int
    version: int
    moved_by: str
    moved_at: Moment

"""Models, versions, aliases."""

from typing import Annotated

from pydantic import Field

from service.schemas.wire import Body, Digest, LineView, Moment, View

FilePath = Annotated[str, Field(min_length=1, max_length=512)]
TensorName = Annotated[str, Field(min_length=1, max_length=1024)]


class ModelView(LineView):
    """A named line of base weights."""


class PublishModelVersion(Body):
    """The files of a version: blobs that were uploaded before."""

    files: Annotated[dict[FilePath, Digest], Field(min_length=1, max_length=10_000)] = Field(
        examples=[{"model.safetensors": "sha256:" + "0" * 64}],
        description="PyTorch checkpoints among them are converted to safetensors by a worker.",
    )
    forward_order: (
        Annotated[
            list[TensorName | tuple[FilePath, TensorName]], Field(min_length=1, max_length=100_000)
        ]
        | None
    ) = Field(
        default=None,
        description="Tensors as data passes them, by name, or by [path, name] where files share a "
        "name. Null: as converted checkpoints record it; a safetensors file does not.",
    )


class ModelFileView(View):
    """One file of a version."""

    path: str
    digest: Digest
    size_bytes: int
    is_weights: bool


class ConvertedFrom(View):
    """The checkpoint that a weight file was converted from."""

    path: str
    digest: Digest


class TiedName(View):
    """A further name of a tensor, which the version holds once."""

    path: str
    name: str
    same_as: str


class LeftOut(View):
    """What was given and is not in the version: an entry of a checkpoint, or a whole file."""

    path: str
    name: str | None


class ConversionView(View):
    """How a version was made from PyTorch checkpoints."""

    converted: dict[str, ConvertedFrom] = Field(description="By path in the version.")
    tied: list[TiedName]
    left_out: list[LeftOut]


class ModelVersionView(View):
    """An immutable published state of a model."""

    model: str
    number: int
    reference: str
    weights_digest: Digest = Field(description="Version digest: over the weight files alone.")
    size_bytes: int
    files: list[ModelFileView]
    conversion: ConversionView | None = Field(description="Null where nothing was converted.")
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
    place: int | None = Field(description="In forward order, from 0; null where it is not known.")


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

"""Patches, their versions, and extractions."""

from typing import Annotated, Any, Literal

from pydantic import Field

from service.schemas.wire import Body, Digest, LineView, Moment, View

Quality = Literal["exact", "high", "standard", "small", "tiny"]


class PatchView(LineView):
    """A named line of signatures."""


class PublishPatchVersion(Body):
    """A patch file made elsewhere: a blob that was uploaded before."""

    blob: Digest
    profile: Digest | None = Field(default=None, description="Blob of its profile, if any.")


class PatchVersionView(View):
    """An immutable published state of a patch."""

    patch: str
    number: int
    reference: str
    digest: Digest
    size_bytes: int
    profile_digest: Digest | None
    clean: str | None = Field(description="Reference of the clean model, where known here.")
    robust: str | None
    origin: str | None
    clean_digest: Digest | None = Field(description="Version digest of the clean model.")
    summary: dict[str, Any]
    created_by: str
    created_at: Moment
    withdrawn_at: Moment | None
    withdrawn_reason: str | None


class Energy(Body):
    """Kernels by energy density until this share of the total is covered."""

    energy: float = Field(gt=0, le=1)


class First(Body):
    """The first kernels in forward order."""

    first: int = Field(ge=1)


class Named(Body):
    """Kernels whose name matches one of these globs."""

    names: list[str] = Field(min_length=1, max_length=1000)


ForwardOrder = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=1000)]],
    Field(min_length=1, max_length=100_000),
]


class _Extraction(Body):
    """What to extract, of whatever robust models."""

    clean: str = Field(examples=["vision/resnet50@3"])
    origin: str | None = None
    layers: Energy | First | Named | Literal["all"] = Energy(energy=0.85)
    projection: Literal["auto", "none"] = "auto"
    quality: Quality = "standard"
    dry_run: bool = Field(default=False, description="Answer with the profile; publish nothing.")
    forward_order: ForwardOrder | None = Field(
        default=None,
        description="Names of tensors in the order in which data passes them; what it does not "
        "name follows. Else as the clean model's checkpoint held them, else by name.",
    )


class RequestExtraction(_Extraction):
    """Extract a patch from a pair of models, with or without their common origin."""

    robust: str = Field(examples=["vision/resnet50-fog@1"])


class RequestExtractions(_Extraction):
    """Extract several patches at once, from robust models that share their clean one."""

    robust: dict[str, str] = Field(
        min_length=1,
        max_length=100,
        description="The robust model of each patch, by the patch's name.",
        examples=[{"vision/fog": "vision/resnet50-fog@1", "vision/snow": "vision/resnet50-snow@1"}],
    )

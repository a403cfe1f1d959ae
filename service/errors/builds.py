"""Recipes carried out."""

from dataclasses import dataclass

from service.errors.tree import Broken, Conflict, Unavailable


@dataclass(eq=False)
class ScaleOverflows(Conflict):
    """A patched value is too large for the tensor's dtype."""

    tensor: str
    dtype: str
    slug = "scale-overflows"

    def __str__(self) -> str:
        return f"tensor {self.tensor!r} leaves the range of {self.dtype}; use smaller scales"


@dataclass(eq=False)
class BuildDiffers(Broken):
    """A rebuild of a recipe gave other bytes than the first build."""

    recipe: str
    path: str
    expected: str
    actual: str
    slug = "build-differs"

    def __str__(self) -> str:
        return (
            f"recipe {self.recipe}, {self.path}: its bytes hash to {self.actual}, recorded was "
            f"{self.expected}; nothing was published, check the worker's device and release"
        )


@dataclass(eq=False)
class BuildNotReady(Conflict):
    """The build is not ready, or its overlay has expired; ask for it again with POST /v1/builds."""

    recipe: str
    slug = "build-not-ready"

    def __str__(self) -> str:
        return f"build {self.recipe} is not ready; ask for it with POST /v1/builds"


@dataclass(eq=False)
class BuildUnderWay(Unavailable):
    """The build takes longer than the request would wait."""

    recipe: str
    operation: str
    slug = "build-under-way"

    def __str__(self) -> str:
        return (
            f"build {self.recipe} is under way; ask again shortly, or follow "
            f"/v1/operations/{self.operation}"
        )


@dataclass(eq=False)
class BuildFailed(Conflict):
    """The recipe could not be carried out."""

    recipe: str
    operation: str
    reason: str
    slug = "build-failed"

    def __str__(self) -> str:
        return f"build {self.recipe} failed: {self.reason}; see /v1/operations/{self.operation}"

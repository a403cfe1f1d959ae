"""Recipes that cannot be read, or hold what does not go together."""

from dataclasses import dataclass

from service.errors.tree import Conflict, Invalid


@dataclass(eq=False)
class BadRecipe(Invalid):
    """A recipe cannot be read.

    The form is `BASE+PATCH=SCALE+PATCH=SCALE`, for example `main+gaussian-noise=0.8+fog~2=0.5`.
    """

    text: str
    reason: str
    slug = "bad-recipe"

    def __str__(self) -> str:
        return f"recipe {self.text!r} {self.reason}"


@dataclass(eq=False)
class BadScale(Invalid):
    """A scale is a plain decimal with at most 4 places and an absolute value of at most 10."""

    text: str
    reason: str
    slug = "bad-scale"

    def __str__(self) -> str:
        return f"scale {self.text!r} {self.reason}"


@dataclass(eq=False)
class TwoVersionsOfOnePatch(Invalid):
    """A recipe may hold one version of a patch."""

    patch: str
    versions: list[int]
    slug = "two-versions-of-one-patch"

    def __str__(self) -> str:
        return (
            f"the recipe holds versions {' and '.join(map(str, self.versions))} of patch "
            f"{self.patch!r}; keep one of them"
        )


@dataclass(eq=False)
class SeveralBases(Invalid):
    """The recipes of a sweep must stand on one base."""

    bases: list[str]
    slug = "several-bases"

    def __str__(self) -> str:
        shown = ", ".join(self.bases[:5])
        return f"the recipes stand on different weights ({shown}); ask for one sweep a base"


@dataclass(eq=False)
class NotTheSameBase(Conflict):
    """The recipe requires each patch to have been extracted on this very base."""

    patch: str
    base: str
    extracted_on: str
    slug = "not-the-same-base"

    def __str__(self) -> str:
        return (
            f"patch {self.patch} was extracted on {self.extracted_on}, not on {self.base}; drop "
            '"require": "same_base" to apply it all the same'
        )


@dataclass(eq=False)
class CannotBalance(Conflict):
    """Two patches of a recipe are too much alike to be balanced against each other.

    A balanced recipe lets the sum hold as much of each signature as was asked for. Where two are
    nearly the same there is no telling which of them to take: their scales would grow without need.
    """

    first: str
    second: str
    reason: str
    slug = "cannot-balance"

    def __str__(self) -> str:
        return (
            f"patches {self.first} and {self.second} cannot be balanced: {self.reason}; leave one "
            "of them out, or give plain scales"
        )

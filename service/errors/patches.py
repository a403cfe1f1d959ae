"""Patch files: what they are extracted from, what they fit, what they gave."""

from dataclasses import dataclass

from service.errors.tree import Conflict, Invalid


@dataclass(eq=False)
class NotAPatchFile(Invalid):
    """A file is not a valid patch file."""

    reason: str
    slug = "not-a-patch-file"

    def __str__(self) -> str:
        return f"not a valid patch file: {self.reason}"


@dataclass(eq=False)
class ModelsDiffer(Conflict):
    """The models of a pair do not have the same tensors."""

    differences: list[str]
    more: int = 0
    slug = "models-differ"

    def __str__(self) -> str:
        rest = f"; and {self.more} more" if self.more else ""
        return f"the models differ: {'; '.join(self.differences)}{rest}"


@dataclass(eq=False)
class NonFiniteWeights(Invalid):
    """A tensor that takes part in an extraction holds NaN or infinity."""

    model: str
    tensors: list[str]
    slug = "non-finite-weights"

    def __str__(self) -> str:
        return f"the {self.model} model holds NaN or infinity in {', '.join(self.tensors)}"


@dataclass(eq=False)
class SignatureTooLarge(Invalid):
    """A tensor's change is too large to be kept as a signature.

    Signatures are kept in 32-bit floating point; the change of some f64 tensors is beyond it.
    """

    tensor: str
    slug = "signature-too-large"

    def __str__(self) -> str:
        return f"the change of tensor {self.tensor!r} is beyond the range of F32; leave it out"


@dataclass(eq=False)
class NothingToExtract(Conflict):
    """The models hold no kernel that differs, or none was selected."""

    reason: str
    slug = "nothing-to-extract"

    def __str__(self) -> str:
        return f"nothing to extract: {self.reason}"


@dataclass(eq=False)
class DoesNotFit(Conflict):
    """A patch does not fit a base: a tensor is missing, has another shape, or cannot be patched."""

    patch: str
    base: str
    reasons: list[str]
    more: int = 0
    slug = "does-not-fit"

    def __str__(self) -> str:
        rest = f"; and {self.more} more" if self.more else ""
        return f"patch {self.patch} does not fit {self.base}: {'; '.join(self.reasons)}{rest}"


@dataclass(eq=False)
class ResultsDiffer(Conflict):
    """Another result of the same condition was published before."""

    patch: str
    condition: str
    accuracy: float
    n: int
    slug = "results-differ"

    def __str__(self) -> str:
        return (
            f"{self.patch}: for {self.condition} the accuracy {self.accuracy:.4g} of {self.n} "
            "images is published already; name another seed or severity for another measurement"
        )

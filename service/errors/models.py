"""Model versions, and the files they are made of."""

from dataclasses import dataclass

from service.errors.tree import Conflict, Invalid


@dataclass(eq=False)
class NotSafetensors(Invalid):
    """A file is not a valid safetensors file.

    The header must name each tensor once, with a known dtype, a shape that agrees with its byte
    range, and ranges that cover the data without holes or overlaps.
    """

    reason: str
    file: str = "the file"
    slug = "not-safetensors"

    def __str__(self) -> str:
        return f"{self.file} is not a valid safetensors file: {self.reason}"


@dataclass(eq=False)
class UnsupportedFormat(Invalid):
    """A file is of a format that the registry does not take; it keeps safetensors only."""

    file: str
    format: str
    advice: str
    slug = "unsupported-format"

    def __str__(self) -> str:
        return f"{self.file} is {self.format}, which the registry does not take; {self.advice}"


@dataclass(eq=False)
class BadFileSet(Invalid):
    """The files of a model version do not belong together."""

    reason: str
    slug = "bad-file-set"

    def __str__(self) -> str:
        return f"the files do not make a model version: {self.reason}"


@dataclass(eq=False)
class BadForwardOrder(Invalid):
    """The forward order that was given does not belong to the files."""

    reason: str
    slug = "bad-forward-order"

    def __str__(self) -> str:
        return f"forward order: {self.reason}"


@dataclass(eq=False)
class SeveralFiles(Conflict):
    """The model has several weight files; name one."""

    paths: list[str]
    slug = "several-files"

    def __str__(self) -> str:
        return f"the model has {len(self.paths)} weight files; name one of {', '.join(self.paths)}"

"""Files that a job reads, and those that it makes."""

from dataclasses import dataclass
from pathlib import Path

from service.names import Digest


@dataclass(frozen=True, slots=True)
class WeightInput:
    """One weight file of a model version; `path` is its path in the version."""

    path: str
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ModelInput:
    """A model version to read; `digest` is the version digest."""

    digest: Digest
    reference: str
    files: tuple[WeightInput, ...]


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A file on the worker's disk that is to become a blob."""

    path: Path
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class WithoutFiles:
    """What came of a job that makes no files."""

    @property
    def files(self) -> tuple[MadeFile, ...]:
        """Nothing: all that was found is recorded."""
        return ()

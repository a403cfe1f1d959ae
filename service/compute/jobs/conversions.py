"""PyTorch checkpoints that become safetensors."""

from collections.abc import Mapping
from dataclasses import dataclass

from service.compute.jobs.files import MadeFile
from service.names import Digest


@dataclass(frozen=True, slots=True)
class CheckpointInput:
    """A PyTorch checkpoint, and the path that its weights will have in the version."""

    path: str
    target: str
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class IndexInput:
    """The index of a sharded set of checkpoints, and the path of the one that replaces it."""

    path: str
    target: str
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ConvertJob:
    """Convert a version's PyTorch checkpoints to safetensors."""

    checkpoints: tuple[CheckpointInput, ...]
    indexes: tuple[IndexInput, ...]


@dataclass(frozen=True, slots=True)
class ConvertedFile:
    """What a checkpoint became; `header` is the safetensors header, byte for byte.

    `order` lists the tensors as the checkpoint did, `tied` further names of shared ones with the
    name that was kept. `guards` says what the kernel kept from the converter: `network`, `files`.
    """

    source: str
    source_digest: Digest
    path: str
    file: MadeFile
    header: bytes
    order: tuple[str, ...]
    tied: Mapping[str, str]
    left_out: tuple[str, ...]
    guards: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MadeIndex:
    """The index of a set of converted shards."""

    path: str
    file: MadeFile


@dataclass(frozen=True, slots=True)
class ConvertMade:
    """What a version's checkpoints became."""

    weights: tuple[ConvertedFile, ...]
    indexes: tuple[MadeIndex, ...]

    @property
    def files(self) -> tuple[MadeFile, ...]:
        """What is to be stored."""
        return (*(each.file for each in self.weights), *(each.file for each in self.indexes))

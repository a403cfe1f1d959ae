"""An overlay: a safetensors file of the tensors that a recipe changes, and nothing else.

    ┌──────────────────────────┬──────────┬──────────┬─────┐
    │ header, as in header.py, │ tensor 1 │ tensor 2 │ …   │     in the order of the base file
    │ without `__metadata__`   │          │          │     │
    └──────────────────────────┴──────────┴──────────┴─────┘

Names, dtypes and shapes are the base's, so the header of an overlay is known before a tensor is
computed, and its bytes depend on the recipe alone. An undo has the same header, byte for byte, and
the base's own bytes behind it.
"""

import hashlib
from collections.abc import Collection
from typing import Protocol

from service import errors
from service.layout.header import Header, TensorEntry, compose
from service.names import Digest

Content = bytes | bytearray | memoryview

_NAMED_REASONS = 10


class Sink(Protocol):
    """What an overlay is written to: a file opened for bytes, or a blob writer."""

    def write(self, content: Content, /) -> object:
        """Take all of `content`."""


def overlay_header(base: Header, names: Collection[str]) -> Header:
    """The header of the overlay that holds the tensors `names` of `base`.

    Raises `ThingNotFound` for a name that the base lacks.
    """
    wanted = {base.entry(name).name for name in names}
    return compose((t.name, t.dtype, t.shape) for t in base.tensors if t.name in wanted)


def check_fits(base: Header, overlay: Header, file: str = "the base file") -> None:
    """Check that each tensor of `overlay` is in `base` with its dtype and shape.

    Raises `OverlayDoesNotFit`, naming up to ten tensors.
    """
    reasons = [
        reason
        for tensor in overlay.tensors
        if (reason := _misfit(base.by_name.get(tensor.name), tensor))
    ]
    if reasons:
        more = max(0, len(reasons) - _NAMED_REASONS)
        raise errors.OverlayDoesNotFit(file, reasons[:_NAMED_REASONS], more)


def _misfit(own: TensorEntry | None, tensor: TensorEntry) -> str:
    if own is None:
        return f"tensor {tensor.name!r} is not in it"
    if (own.dtype, own.shape) != (tensor.dtype, tensor.shape):
        return (
            f"tensor {tensor.name!r} is {own.dtype} {list(own.shape)} in it, "
            f"not {tensor.dtype} {list(tensor.shape)}"
        )
    return ""


class OverlayWriter:
    """Writes an overlay front to back, hashing as it goes; the header goes out at once.

    A tensor out of order, too long or too short is a mistake of the caller's code: `ValueError`.
    """

    def __init__(self, sink: Sink, header: Header) -> None:
        self.header = header
        self._sink = sink
        self._sha256 = hashlib.sha256()
        self._written = 0
        self._put(header.raw)

    def write(self, name: str, content: Content) -> None:
        """Write the next bytes of tensor `name`, all of them or a part."""
        tensor = self.header.entry(name)
        view = memoryview(content).cast("B")
        if not tensor.start <= self._written <= tensor.end - len(view):
            raise ValueError(
                f"{len(view)} bytes of tensor {name!r} do not belong at byte {self._written}: "
                f"it goes from {tensor.start} to {tensor.end}"
            )
        self._put(view)

    def finish(self) -> Digest:
        """The overlay's digest, once every tensor is written."""
        if self._written != self.header.file_size:
            raise ValueError(f"{self._written} of {self.header.file_size} bytes were written")
        return Digest("sha256:" + self._sha256.hexdigest())

    def _put(self, content: Content) -> None:
        self._sha256.update(content)
        self._sink.write(content)
        self._written += memoryview(content).nbytes

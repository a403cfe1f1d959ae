"""Which patch files a worker has decoded in full: a build need not hold them to their pins again.

A patch is verified, or made, by one child of the worker, and first built with by another.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from threading import Lock
from typing import Any, Final

from service.compute.jobs import (
    BuildJob,
    ExtractMade,
    ExtractManyMade,
    PatchInput,
    SweepJob,
    VerifyJob,
)
from service.names import Digest

KEPT: Final = 1024


class Checked:
    """The patch files decoded lately, by device: another kind might decode to other bits."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, Digest], None] = OrderedDict()
        self._lock = Lock()

    def note(self, device: str, job: Any, made: Any) -> None:
        """Remember what a job that is done has decoded and found to be what the files say."""
        with self._lock:
            for digest in _decoded(job, made):
                self._known[device, digest] = None
                self._known.move_to_end((device, digest))
            while len(self._known) > KEPT:
                self._known.popitem(last=False)

    def marked(self, device: str, job: Any) -> Any:
        """The same job, its patches marked as far as they were decoded on such a device."""
        match job:
            case BuildJob():
                return replace(job, patches=self._marked(device, job.patches))
            case SweepJob():
                recipes = tuple(self._marked(device, patches) for patches in job.recipes)
                return replace(job, recipes=recipes)
            case _:
                return job

    def _marked(self, device: str, patches: tuple[PatchInput, ...]) -> tuple[PatchInput, ...]:
        return tuple(
            replace(patch, is_checked=(device, patch.digest) in self._known) for patch in patches
        )


def _decoded(job: Any, made: Any) -> Iterator[Digest]:
    if isinstance(job, VerifyJob):
        yield job.digest
    extracted = made.extractions if isinstance(made, ExtractManyMade) else (made,)
    for each in extracted:
        if isinstance(each, ExtractMade) and each.patch is not None:
            yield each.patch.digest

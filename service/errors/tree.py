"""The root of the tree, and its kinds."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(eq=False)
class PatchbayError(Exception):
    """Something went wrong."""

    slug: ClassVar[str] = ""

    @property
    def title(self) -> str:
        """What kind of error this is, in one line, the same for every instance."""
        return (type(self).__doc__ or "").strip().splitlines()[0].rstrip(".")

    @property
    def fields(self) -> dict[str, Any]:
        """The values of this instance, by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception pickles by positional `args`, which a dataclass does not fill: an error that
        # crosses from the device process to the worker would come back as a TypeError.
        return _rebuild, (type(self), self.fields)


def _rebuild(kind: type[PatchbayError], fields: dict[str, Any]) -> PatchbayError:
    return kind(**fields)


def leaves(kind: type[PatchbayError] = PatchbayError) -> list[type[PatchbayError]]:
    """Every error that can be raised, kind by kind."""
    found = [kind] if kind.slug else []
    for child in kind.__subclasses__():
        found += leaves(child)
    return found


class NotFound(PatchbayError):
    """The thing is not there."""


class Gone(PatchbayError):
    """The thing was deleted on purpose."""


class Invalid(PatchbayError):
    """What was sent cannot be right."""


class Conflict(PatchbayError):
    """What was asked does not fit the present state."""


class Stale(PatchbayError):
    """The state has moved on since the caller read it."""


class PreconditionMissing(PatchbayError):
    """The request must say which state it was decided on."""


class TooLarge(PatchbayError):
    """Over a stated limit."""


class Unauthenticated(PatchbayError):
    """The caller is not known."""


class Forbidden(PatchbayError):
    """The caller may not do this."""


class Busy(PatchbayError):
    """Too much is under way; try again later."""


class Unavailable(PatchbayError):
    """A part behind the service does not answer."""


class StorageFull(PatchbayError):
    """There is no room to keep what was sent."""


class Broken(PatchbayError):
    """A promise of the service's own did not hold."""

"""Files on the user's machine."""

from dataclasses import dataclass

from service.errors.tree import Broken, Conflict, Invalid


@dataclass(eq=False)
class OverlayDoesNotFit(Conflict):
    """An overlay or undo does not belong to a file: a tensor is missing, or has another form."""

    file: str
    reasons: list[str]
    more: int = 0
    slug = "overlay-does-not-fit"

    def __str__(self) -> str:
        rest = f"; and {self.more} more" if self.more else ""
        return (
            f"the overlay does not fit {self.file}: {'; '.join(self.reasons)}{rest}; "
            "take the overlay that was built on this very file"
        )


@dataclass(eq=False)
class LinkedFile(Conflict):
    """A file that other names share is never changed in place.

    Hub caches link their snapshots to one blob: writing into one would change the others too.
    """

    path: str
    reason: str
    slug = "linked-file"

    def __str__(self) -> str:
        return (
            f"{self.path} {self.reason}, so a change in place would reach further than this file; "
            "write a patched copy instead, with -o FILE"
        )


@dataclass(eq=False)
class FileNotAsRecorded(Conflict):
    """A local file does not have the bytes that its record or its base says."""

    path: str
    expected: str
    actual: str
    slug = "file-not-as-recorded"

    def __str__(self) -> str:
        return (
            f"{self.path} hashes to {self.actual}, not to {self.expected}; nothing was written, "
            "pull the base again"
        )


@dataclass(eq=False)
class NothingToUndo(Conflict):
    """A local file has no record of a patch applied in place."""

    path: str
    slug = "nothing-to-undo"

    def __str__(self) -> str:
        return f"{self.path} has no patch applied in place: {self.path}.patchbay holds no undo"


@dataclass(eq=False)
class AlreadyPatched(Conflict):
    """A local file carries a patch already, and the base is needed."""

    path: str
    recipe: str
    slug = "already-patched"

    def __str__(self) -> str:
        return f"{self.path} carries {self.recipe} already; take it off with `patchbay undo` first"


@dataclass(eq=False)
class UndoMissing(Conflict):
    """A file was pulled with its patches on, and the base's bytes are not here."""

    path: str
    recipe: str
    slug = "undo-missing"

    def __str__(self) -> str:
        return (
            f"{self.path} was pulled as {self.recipe}, without the base's bytes; `patchbay undo` "
            "fetches them from the service"
        )


@dataclass(eq=False)
class FileBusy(Conflict):
    """Another run is changing the same local file."""

    path: str
    slug = "file-busy"

    def __str__(self) -> str:
        return f"another run is changing {self.path}; wait until it has ended"


@dataclass(eq=False)
class BadSidecar(Invalid):
    """The record beside a local file cannot be read."""

    path: str
    reason: str
    slug = "bad-sidecar"

    def __str__(self) -> str:
        return f"{self.path} {self.reason}; pull the base again and remove the record"


@dataclass(eq=False)
class NotVerified(Broken):
    """Bytes that were fetched or written do not hash to what they must be."""

    what: str
    expected: str
    actual: str
    advice: str
    slug = "not-verified"

    def __str__(self) -> str:
        return f"{self.what} hashes to {self.actual}, not to {self.expected}; {self.advice}"

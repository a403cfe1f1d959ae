"""What every noun has: it is there or not, deleted, needed, moved."""

from dataclasses import dataclass

from service.errors.tree import Conflict, Gone, NotFound, PreconditionMissing, Stale


@dataclass(eq=False)
class ThingNotFound(NotFound):
    """No such model, patch, version, alias, channel, recipe, build, operation or token."""

    kind: str
    name: str
    slug = "not-found"

    def __str__(self) -> str:
        return f"no {self.kind} {self.name!r}"


@dataclass(eq=False)
class ThingDeleted(Gone):
    """The version was deleted; its number is never used again."""

    kind: str
    name: str
    slug = "deleted"

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} was deleted"


@dataclass(eq=False)
class ThingExists(Conflict):
    """A thing of this name, in whatever case, exists already."""

    kind: str
    name: str
    slug = "exists"

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} exists already"


@dataclass(eq=False)
class StillNeeded(Conflict):
    """A version that something points at cannot be deleted."""

    kind: str
    name: str
    channels: list[str]
    recipes: list[str]
    slug = "still-needed"

    def __str__(self) -> str:
        users = [f"channel {c!r}" for c in self.channels] + [
            f"build {recipe.removeprefix('sha256:')}" for recipe in self.recipes
        ]
        steps = ["move the channels"] if self.channels else []
        steps += ["let go of the builds with DELETE /v1/builds/{id}"] if self.recipes else []
        return (
            f"{self.kind} {self.name!r} is still needed by {', '.join(users)}; "
            f"{' and '.join(steps)} first"
        )


@dataclass(eq=False)
class AliasesPoint(Conflict):
    """A version that an alias names cannot be deleted."""

    name: str
    aliases: list[str]
    slug = "aliases-point"

    def __str__(self) -> str:
        return f"version {self.name!r} is named by {', '.join(self.aliases)}; move them first"


@dataclass(eq=False)
class StateMoved(Stale):
    """The thing changed since it was read."""

    kind: str
    name: str
    seen: str
    now: str
    slug = "state-moved"

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} is at {self.now}, not {self.seen}; read it again"


@dataclass(eq=False)
class StateNotNamed(PreconditionMissing):
    """A change must name the state it was decided on.

    Send `If-Match` with the ETag that was read, or `If-None-Match: *` with a first PUT.
    """

    kind: str
    name: str
    now: str
    slug = "state-not-named"

    def __str__(self) -> str:
        return (
            f'{self.kind} {self.name!r} is at {self.now}: send If-Match: "{self.now}"'
            if self.now
            else f"{self.kind} {self.name!r} does not exist yet: send If-None-Match: *"
        )

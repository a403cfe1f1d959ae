"""What the service is put together from."""

from dataclasses import dataclass

from service.errors.tree import Conflict, Unavailable


@dataclass(eq=False)
class DatabaseUnavailable(Unavailable):
    """The database does not answer."""

    slug = "database-unavailable"

    def __str__(self) -> str:
        return "the database does not answer; try again shortly"


@dataclass(eq=False)
class NotReady(Unavailable):
    """A part that the service cannot do without does not answer."""

    parts: dict[str, str]
    slug = "not-ready"

    def __str__(self) -> str:
        down = [f"{part} ({state})" for part, state in self.parts.items() if state != "ok"]
        return f"not ready: {', '.join(down)}"


@dataclass(eq=False)
class HomeUnusable(Conflict):
    """The state directory cannot be used."""

    path: str
    reason: str
    slug = "home-unusable"

    def __str__(self) -> str:
        return f"state directory {self.path}: {self.reason}"


@dataclass(eq=False)
class HomeInUse(Conflict):
    """Another `patchbay serve` uses the state directory."""

    path: str
    pid: int
    slug = "home-in-use"

    def __str__(self) -> str:
        return (
            f"state directory {self.path} is in use by process {self.pid}; stop it, or set "
            "PATCHBAY_HOME to another directory"
        )


@dataclass(eq=False)
class PartFailed(Unavailable):
    """A part that the service starts itself did not come up."""

    part: str
    reason: str
    slug = "part-failed"

    def __str__(self) -> str:
        return f"{self.part} did not start: {self.reason}"


@dataclass(eq=False)
class DeviceUnusable(Unavailable):
    """The device that a worker was told to use cannot be used."""

    device: str
    reason: str
    slug = "device-unusable"

    def __str__(self) -> str:
        return f"device {self.device!r} cannot be used: {self.reason}; choose cuda:N, cpu or auto"

"""Names, digests and references that do not follow the rules."""

from dataclasses import dataclass

from service.errors.tree import Invalid


@dataclass(eq=False)
class BadName(Invalid):
    """A name does not follow the rules.

    Models follow the Hub's rule (`[A-Za-z0-9][A-Za-z0-9._-]{0,95}`, no `--`, no `..`, not ending in
    `.git`, `.` or `-`); namespaces and patches have no dot (`[A-Za-z0-9][A-Za-z0-9_-]{0,62}`).
    """

    kind: str
    name: str
    reason: str
    slug = "bad-name"

    def __str__(self) -> str:
        return f"{self.kind} name {self.name!r} {self.reason}"


@dataclass(eq=False)
class ReservedNamespace(Invalid):
    """A namespace is reserved for the service's own routes."""

    namespace: str
    slug = "reserved-namespace"

    def __str__(self) -> str:
        return f"namespace {self.namespace!r} is reserved; choose another"


@dataclass(eq=False)
class BadDigest(Invalid):
    """A digest is not of the form `sha256:` and 64 lower-case hexadecimal digits."""

    text: str
    slug = "bad-digest"

    def __str__(self) -> str:
        return f"{self.text!r} is not a digest; write sha256: and 64 lower-case hex digits"


@dataclass(eq=False)
class BadReference(Invalid):
    """A reference is `namespace/name` or `namespace/name@REVISION`."""

    text: str
    reason: str
    slug = "bad-reference"

    def __str__(self) -> str:
        return f"reference {self.text!r} {self.reason}"

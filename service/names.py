"""Identifiers and small values, parsed once into something that cannot be wrong.

The grammar of names, references and recipe strings is the same in REST, the command line, the
pages and a Hub revision, so it stands here and nowhere else.

    reference   namespace/name  |  namespace/name@REVISION
    REVISION    a version number (`3` or `v3`), an alias, or for models a recipe string
    recipe      BASE+PATCH=SCALE+PATCH=SCALE…      main+gaussian-noise=0.8+other.fog~2=0.5
    PATCH       name of the model's own namespace, or namespace.name; ~2 pins a version
    SCALE       a plain decimal, at most 4 places, at most 10 in size
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NewType

import rfc8785

from service import errors

Digest = NewType("Digest", str)
"""`sha256:` and 64 lower-case hexadecimal digits."""

CONTRACT: Final = 1
"""Number of the numeric contract; part of every recipe digest."""

RESERVED_NAMESPACES: Final = frozenset(
    {
        *("v1", "api", "static", "docs", "problems", "models", "patches", "channels"),
        *("operations", "builds", "datasets", "spaces", "kernels"),
        *("healthz", "readyz", "metrics", "openapi"),
    }
)
MAX_SCALE: Final = Decimal(10)
SCALE_PLACES: Final = 4
MAX_PATCHES: Final = 100
"""The most patches that a recipe may list."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,95}")
_NUMBER = re.compile(r"v?([1-9][0-9]{0,8})")
_HEX = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.IGNORECASE)
_SCALE = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,20})?")


def parse_digest(text: str) -> Digest:
    """Read a digest; raises `BadDigest`."""
    if not _DIGEST.fullmatch(text):
        raise errors.BadDigest(text[:100])
    return Digest(text)


def digest_of(content: bytes) -> Digest:
    """Name `content` by its sha256."""
    return Digest("sha256:" + hashlib.sha256(content).hexdigest())


def digest_of_json(value: object) -> Digest:
    """Name a JSON value by the sha256 of its RFC 8785 form."""
    return digest_of(rfc8785.dumps(value))  # type: ignore[arg-type]  # its JSON type is recursive


@dataclass(frozen=True, slots=True)
class Name:
    """`namespace/name` of a model, a patch or a channel."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def key(self) -> str:
        """What makes the name unique: names that differ in case alone are the same."""
        return str(self).lower()


def model_name(text: str) -> Name:
    """Read `namespace/name` of a model; raises `BadName` and `ReservedNamespace`."""
    namespace, name = _halves("model", text)
    if not _MODEL.fullmatch(name) or "--" in name or ".." in name:
        raise errors.BadName("model", text, "needs letters, digits, . _ and single -, at most 96")
    if name.lower().endswith((".git", ".", "-")):
        raise errors.BadName("model", text, "must not end in .git, . or -")
    return Name(namespace, name)


def patch_name(text: str) -> Name:
    """Read `namespace/name` of a patch; raises `BadName` and `ReservedNamespace`."""
    return _plain_name("patch", text)


def channel_name(text: str) -> Name:
    """Read `namespace/name` of a channel; raises `BadName` and `ReservedNamespace`."""
    return _plain_name("channel", text)


def _plain_name(kind: str, text: str) -> Name:
    namespace, name = _halves(kind, text)
    if not _NAMESPACE.fullmatch(name):
        raise errors.BadName(kind, text, "needs letters, digits, _ and -, at most 63")
    return Name(namespace, name)


def _halves(kind: str, text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not slash or "/" in name:
        raise errors.BadName(kind, text[:200], "is not of the form namespace/name")
    if not _NAMESPACE.fullmatch(namespace):
        raise errors.BadName(
            kind, text[:200], "has a namespace that needs letters, digits, _ and -, at most 63"
        )
    if namespace.lower() in RESERVED_NAMESPACES:
        raise errors.ReservedNamespace(namespace)
    return namespace, name


def alias_name(text: str) -> str:
    """Read a model alias; raises `BadName`."""
    if not _ALIAS.fullmatch(text) or _NUMBER.fullmatch(text) or _HEX.fullmatch(text):
        raise errors.BadName(
            "alias",
            text[:200],
            "needs a letter first, then letters, digits, . _ and -; "
            "never v and digits, never 40 or 64 hex digits",
        )
    return text


def version_number(text: str) -> int | None:
    """Read a version number, `3` or `v3`; None where the text is not one."""
    match = _NUMBER.fullmatch(text)
    return int(match[1]) if match else None


# ── scales ───────────────────────────────────────────────────────────────────────────────────


def parse_scale(text: str) -> Decimal:
    """Read a scale; raises `BadScale` naming what is wrong."""
    shown = text[:40]
    if re.search(r"[eE]", text):
        raise errors.BadScale(shown, "has an exponent; write a plain decimal such as 0.5")
    if re.fullmatch(r"-?\.[0-9]+", text):
        raise errors.BadScale(shown, "has no digit before the point; write 0.5")
    if not _SCALE.fullmatch(text):
        raise errors.BadScale(shown, "is not a plain decimal number such as 0.5")
    return check_scale(Decimal(text))


def check_scale(scale: Decimal) -> Decimal:
    """Check the bounds of a scale; raises `BadScale`."""
    exponent = scale.as_tuple().exponent
    if not isinstance(exponent, int):
        raise errors.BadScale(str(scale), "is not a finite number")
    if -exponent > SCALE_PLACES:
        raise errors.BadScale(str(scale), f"has more than {SCALE_PLACES} decimal places")
    if abs(scale) > MAX_SCALE:
        raise errors.BadScale(str(scale), f"is outside -{MAX_SCALE} to {MAX_SCALE}")
    return scale


def scale_text(scale: Decimal) -> str:
    """The one way to write a scale: no exponent, no trailing zeros, no negative zero."""
    text = f"{scale:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in {"-0", ""} else text


# ── references and recipe strings ────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Reference:
    """`namespace/name@REVISION`, the revision still as text (None: the default one)."""

    name: Name
    revision: str | None

    def __str__(self) -> str:
        return str(self.name) if self.revision is None else f"{self.name}@{self.revision}"


def model_reference(text: str) -> Reference:
    """Read a reference to a model version or a recipe on it."""
    name, at, revision = text.partition("@")
    if at and not revision:
        raise errors.BadReference(text[:200], "has nothing after @; name a version or an alias")
    return Reference(model_name(name), revision if at else None)


def patch_reference(text: str) -> Reference:
    """Read a reference to a patch version, `namespace/name` or `namespace/name@2`."""
    name, at, revision = text.partition("@")
    if at and version_number(revision) is None:
        raise errors.BadReference(
            text[:200], "needs a version number after @; patches have no aliases"
        )
    return Reference(patch_name(name), revision if at else None)


@dataclass(frozen=True, slots=True)
class Ingredient:
    """One patch of a recipe as entered; `version` None means the newest."""

    patch: Name
    version: int | None
    scale: Decimal


@dataclass(frozen=True, slots=True)
class RecipeText:
    """A recipe as entered: a base revision (alias or number) and the patches on it."""

    base: str | None
    patches: tuple[Ingredient, ...]


def parse_recipe(text: str, namespace: str) -> RecipeText:
    """Read a recipe string; patches without a namespace belong to `namespace`.

    Raises `BadRecipe`, `BadName`, `BadScale`.
    """
    shown = text[:300]
    if any(sign in text for sign in "@:/"):
        raise errors.BadRecipe(shown, "must not hold @, : or /; pin a version with ~2")
    # A literal + in a query string arrives as a space: curl and browsers send it so.
    base, *parts = text.replace(" ", "+").split("+")
    if not base:
        raise errors.BadRecipe(shown, "has no base; begin with an alias or a version number")
    if version_number(base) is None:
        alias_name(base)
    return RecipeText(base, tuple(_ingredient(shown, part, namespace) for part in parts))


def _ingredient(recipe: str, part: str, namespace: str) -> Ingredient:
    target, equals, scale = part.partition("=")
    if not equals:
        raise errors.BadRecipe(recipe, f"has no = in {part!r}; write {part or 'PATCH'}=1")
    name, tilde, pin = target.partition("~")
    number = version_number(pin) if tilde else None
    if tilde and number is None:
        raise errors.BadRecipe(recipe, f"has {target!r}: after ~ stands a version number")
    return Ingredient(short_patch_name(name, namespace), number, parse_scale(scale))


def short_patch_name(text: str, namespace: str) -> Name:
    """Read `name`, of the given namespace, or `namespace.name`, as a recipe writes patches."""
    return patch_name(text.replace(".", "/", 1) if "." in text else f"{namespace}/{text}")


# ── canonical recipes ────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class CanonicalRecipe:
    """A recipe by digests alone: what names its bytes.

    `patches` holds (digest of the patch file, scale), sorted by digest, without zeros.
    """

    base: Digest
    patches: tuple[tuple[Digest, Decimal], ...]

    def json(self) -> dict[str, object]:
        """The value whose RFC 8785 form is hashed."""
        return {
            "base": self.base,
            "contract": CONTRACT,
            "patches": [[digest, scale_text(scale)] for digest, scale in self.patches],
        }

    @property
    def digest(self) -> Digest:
        """The recipe digest."""
        return digest_of_json(self.json())


def canonical_recipe(base: Digest, patches: Iterable[tuple[Digest, Decimal]]) -> CanonicalRecipe:
    """Merge equal patches by adding their scales, check the bound, drop zeros, sort by digest."""
    merged: dict[Digest, Decimal] = {}
    for digest, scale in patches:
        merged[digest] = merged.get(digest, Decimal(0)) + scale
    kept = {digest: check_scale(scale) for digest, scale in merged.items()}
    return CanonicalRecipe(base, tuple(sorted((d, s) for d, s in kept.items() if s != 0)))


def weights_digest(files: Mapping[str, tuple[Digest, int]]) -> Digest:
    """The version digest of a model: over its weight files alone, `{path: [digest, size]}`."""
    return digest_of_json({path: [digest, size] for path, (digest, size) in files.items()})


@dataclass(frozen=True, slots=True, order=True)
class TensorAddress:
    """Where a tensor lives: shards and multi-part models may repeat names."""

    path: str
    name: str

    def __str__(self) -> str:
        return f"{self.path}:{self.name}" if self.path else self.name


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Half-open `[start, end)`."""

    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        """How many bytes it spans."""
        return self.end - self.start

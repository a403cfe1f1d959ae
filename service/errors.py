"""The one tree of what can go wrong; no HTTP in it.

    PatchbayError
    ├── NotFound               the thing is not there
    ├── Gone                   it was there and was deleted on purpose
    ├── Invalid                what was sent cannot be right, whatever the state
    ├── Conflict               right in itself, but not with the state as it is
    ├── Stale                  the caller decided on a state that has passed
    ├── PreconditionMissing    the caller must say which state it decided on
    ├── TooLarge               over a stated limit
    ├── Unauthenticated        who are you?
    ├── Forbidden              you may not
    ├── Busy                   right, but not now: too much is queued
    ├── Unavailable            a part behind the service does not answer
    ├── StorageFull            no room to keep what was sent
    └── Broken                 a promise of our own did not hold

Each leaf carries fields, builds its own message (the thing's name and the next step) and has a
`slug` that never changes. The first line of its docstring is the problem's title, the whole
docstring its page at `/problems/{slug}`. `http/problems.py` has the only table from kind to
status, `cli/` the only one to exit code, `worker/` the only one to retry or fail.
"""

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
    """Every error that can be raised, in the order of this file."""
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


# ── names, references, recipes ───────────────────────────────────────────────────────────────


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
class BadScale(Invalid):
    """A scale is a plain decimal with at most 4 places and an absolute value of at most 10."""

    text: str
    reason: str
    slug = "bad-scale"

    def __str__(self) -> str:
        return f"scale {self.text!r} {self.reason}"


@dataclass(eq=False)
class BadRecipe(Invalid):
    """A recipe cannot be read.

    The form is `BASE+PATCH=SCALE+PATCH=SCALE`, for example `main+gaussian-noise=0.8+fog~2=0.5`.
    """

    text: str
    reason: str
    slug = "bad-recipe"

    def __str__(self) -> str:
        return f"recipe {self.text!r} {self.reason}"


@dataclass(eq=False)
class BadReference(Invalid):
    """A reference is `namespace/name` or `namespace/name@REVISION`."""

    text: str
    reason: str
    slug = "bad-reference"

    def __str__(self) -> str:
        return f"reference {self.text!r} {self.reason}"


@dataclass(eq=False)
class TwoVersionsOfOnePatch(Invalid):
    """A recipe may hold one version of a patch."""

    patch: str
    versions: list[int]
    slug = "two-versions-of-one-patch"

    def __str__(self) -> str:
        return (
            f"the recipe holds versions {' and '.join(map(str, self.versions))} of patch "
            f"{self.patch!r}; keep one of them"
        )


# ── files ────────────────────────────────────────────────────────────────────────────────────


@dataclass(eq=False)
class NotSafetensors(Invalid):
    """A file is not a valid safetensors file.

    The header must name each tensor once, with a known dtype, a shape that agrees with its byte
    range, and ranges that cover the data without holes or overlaps.
    """

    reason: str
    file: str = "the file"
    slug = "not-safetensors"

    def __str__(self) -> str:
        return f"{self.file} is not a valid safetensors file: {self.reason}"


@dataclass(eq=False)
class UnsupportedFormat(Invalid):
    """A file is of a format that the registry does not take; it keeps safetensors only."""

    file: str
    format: str
    advice: str
    slug = "unsupported-format"

    def __str__(self) -> str:
        return f"{self.file} is {self.format}, which the registry does not take; {self.advice}"


@dataclass(eq=False)
class NotAPatchFile(Invalid):
    """A file is not a valid patch file."""

    reason: str
    slug = "not-a-patch-file"

    def __str__(self) -> str:
        return f"not a valid patch file: {self.reason}"


@dataclass(eq=False)
class DigestMismatch(Invalid):
    """The bytes are not the ones their digest names."""

    expected: str
    actual: str
    slug = "digest-mismatch"

    def __str__(self) -> str:
        return (
            f"the bytes hash to {self.actual}, not to {self.expected}; "
            "nothing was kept, send them again"
        )


@dataclass(eq=False)
class BodyCutOff(Invalid):
    """Fewer bytes arrived than were announced."""

    expected_bytes: int
    received_bytes: int
    slug = "body-cut-off"

    def __str__(self) -> str:
        return (
            f"{self.received_bytes} of {self.expected_bytes} bytes arrived; nothing was kept, "
            "send them again"
        )


@dataclass(eq=False)
class BodyTooLong(Invalid):
    """More bytes arrived than were announced."""

    expected_bytes: int
    slug = "body-too-long"

    def __str__(self) -> str:
        return f"more than the announced {self.expected_bytes} bytes arrived; nothing was kept"


@dataclass(eq=False)
class UploadTooLarge(TooLarge):
    """A body is over the size limit."""

    size_bytes: int
    limit_bytes: int
    slug = "upload-too-large"

    def __str__(self) -> str:
        return f"{self.size_bytes} bytes are over the limit of {self.limit_bytes}"


@dataclass(eq=False)
class BadRange(Invalid):
    """A byte range lies outside the file."""

    size_bytes: int
    slug = "bad-range"

    def __str__(self) -> str:
        return f"the range lies outside the file's {self.size_bytes} bytes"


# ── storage and parts behind the service ─────────────────────────────────────────────────────


@dataclass(eq=False)
class BlobNotFound(NotFound):
    """No blob of this digest is stored."""

    digest: str
    slug = "blob-not-found"

    def __str__(self) -> str:
        return f"no blob {self.digest}; upload it with PUT /v1/blobs/{self.digest}"


@dataclass(eq=False)
class UploadEnded(Gone):
    """An upload in parts is over: it was aborted, took too long or held the wrong bytes."""

    upload: str
    reason: str
    slug = "upload-ended"

    def __str__(self) -> str:
        return f"upload {self.upload} {self.reason}; begin another with POST /v1/uploads"


@dataclass(eq=False)
class UploadSealed(Conflict):
    """An upload takes no more parts while it is checked."""

    upload: str
    slug = "upload-sealed"

    def __str__(self) -> str:
        return (
            f"upload {self.upload} was declared complete and takes no more parts; "
            f"GET /v1/uploads/{self.upload} names the operation that checks it"
        )


@dataclass(eq=False)
class PartsMissing(Conflict):
    """An upload is not complete: some of its parts have not arrived.

    `missing` holds the numbers of the first hundred.
    """

    upload: str
    count: int
    missing: list[int]
    slug = "parts-missing"

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.missing[:10]))
        more = f" and {self.count - 10} more" if self.count > 10 else ""  # noqa: PLR2004
        return (
            f"part {shown}{more} of upload {self.upload} did not arrive; send what is missing, "
            "then complete it"
        )


@dataclass(eq=False)
class PartSizeWrong(Invalid):
    """A part of an upload must have exactly the size that its place calls for."""

    part: int
    expected_bytes: int
    announced_bytes: int
    slug = "part-size-wrong"

    def __str__(self) -> str:
        return (
            f"part {self.part} holds {self.expected_bytes} bytes, not {self.announced_bytes}; "
            "every part has the upload's part_bytes, only the last may be shorter"
        )


@dataclass(eq=False)
class DiskFull(StorageFull):
    """The blob store has no room left above its reserve."""

    needed_bytes: int
    free_bytes: int
    slug = "disk-full"

    def __str__(self) -> str:
        return (
            f"no room for {self.needed_bytes} more bytes: {self.free_bytes} are free and a reserve "
            "is kept; nothing was kept, free space on the server and send them again"
        )


@dataclass(eq=False)
class BadStoreUrl(Invalid):
    """The URL of a blob store is `s3://bucket/prefix`, `file:///folder` or a folder's path."""

    url: str
    slug = "bad-store-url"

    def __str__(self) -> str:
        return f"{self.url!r} is no blob store; write s3://bucket/prefix or the path of a folder"


@dataclass(eq=False)
class StoreUnavailable(Unavailable):
    """The blob store does not answer."""

    reason: str
    slug = "store-unavailable"

    def __str__(self) -> str:
        return f"the blob store does not answer ({self.reason}); try again shortly"


@dataclass(eq=False)
class DatabaseUnavailable(Unavailable):
    """The database does not answer."""

    slug = "database-unavailable"

    def __str__(self) -> str:
        return "the database does not answer; try again shortly"


@dataclass(eq=False)
class NoWorker(Unavailable):
    """No live worker serves the queue."""

    queue: str
    slug = "no-worker"

    def __str__(self) -> str:
        return f"no live worker serves queue {self.queue!r}; start one with `patchbay worker`"


@dataclass(eq=False)
class QueueFull(Busy):
    """Too many operations are queued."""

    queued: int
    slug = "queue-full"

    def __str__(self) -> str:
        return f"{self.queued} operations are queued already; try again later"


@dataclass(eq=False)
class DamagedBlob(Broken):
    """A stored blob no longer hashes to its name."""

    digest: str
    slug = "damaged-blob"

    def __str__(self) -> str:
        return f"blob {self.digest} is damaged in the store; upload it again"


@dataclass(eq=False)
class DamagedBlobs(Broken):
    """An audit found stored blobs that do not hash to their names."""

    digests: list[str]
    slug = "damaged-blobs"

    def __str__(self) -> str:
        shown = ", ".join(self.digests[:10])
        more = f" and {len(self.digests) - 10} more" if len(self.digests) > 10 else ""  # noqa: PLR2004
        return (
            f"{len(self.digests)} damaged: {shown}{more}; what needs them is refused until each is "
            "uploaded again"
        )


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


# ── models and patches ───────────────────────────────────────────────────────────────────────


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
class SeveralBases(Invalid):
    """The recipes of a sweep must stand on one base."""

    bases: list[str]
    slug = "several-bases"

    def __str__(self) -> str:
        shown = ", ".join(self.bases[:5])
        return f"the recipes stand on different weights ({shown}); ask for one sweep a base"


@dataclass(eq=False)
class ResultsDiffer(Conflict):
    """Another result of the same condition was published before."""

    patch: str
    condition: str
    accuracy: float
    n: int
    slug = "results-differ"

    def __str__(self) -> str:
        return (
            f"{self.patch}: for {self.condition} the accuracy {self.accuracy:.4g} of {self.n} "
            "images is published already; name another seed or severity for another measurement"
        )


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
class BadFileSet(Invalid):
    """The files of a model version do not belong together."""

    reason: str
    slug = "bad-file-set"

    def __str__(self) -> str:
        return f"the files do not make a model version: {self.reason}"


@dataclass(eq=False)
class BadForwardOrder(Invalid):
    """The forward order that was given does not belong to the files."""

    reason: str
    slug = "bad-forward-order"

    def __str__(self) -> str:
        return f"forward order: {self.reason}"


@dataclass(eq=False)
class BadCheckpoint(Invalid):
    """A PyTorch checkpoint cannot be converted."""

    file: str
    reason: str
    slug = "bad-checkpoint"

    def __str__(self) -> str:
        return f"checkpoint {self.file} cannot be converted: {self.reason}"


@dataclass(eq=False)
class UnsafeCheckpoint(Invalid):
    """A PyTorch checkpoint needs more than tensors: loading it would import and run code.

    Nothing of it was run. Only what `torch.load(weights_only=True)` allows is read.
    """

    file: str
    globals: list[str]
    slug = "unsafe-checkpoint"

    def __str__(self) -> str:
        return (
            f"checkpoint {self.file} would run {', '.join(self.globals)} when it is loaded, and "
            "was not; save the weights alone, with torch.save(model.state_dict(), FILE)"
        )


@dataclass(eq=False)
class ConversionOverLimit(TooLarge):
    """Converting a PyTorch checkpoint takes more than a converter may use."""

    file: str
    limit: str
    slug = "conversion-over-limit"

    def __str__(self) -> str:
        return (
            f"converting {self.file} takes more than {self.limit}; convert it yourself and push "
            "safetensors"
        )


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


# ── extraction, fit, build ───────────────────────────────────────────────────────────────────


@dataclass(eq=False)
class ModelsDiffer(Conflict):
    """The models of a pair do not have the same tensors."""

    differences: list[str]
    more: int = 0
    slug = "models-differ"

    def __str__(self) -> str:
        rest = f"; and {self.more} more" if self.more else ""
        return f"the models differ: {'; '.join(self.differences)}{rest}"


@dataclass(eq=False)
class NonFiniteWeights(Invalid):
    """A tensor that takes part in an extraction holds NaN or infinity."""

    model: str
    tensors: list[str]
    slug = "non-finite-weights"

    def __str__(self) -> str:
        return f"the {self.model} model holds NaN or infinity in {', '.join(self.tensors)}"


@dataclass(eq=False)
class SignatureTooLarge(Invalid):
    """A tensor's change is too large to be kept as a signature.

    Signatures are kept in 32-bit floating point; the change of some f64 tensors is beyond it.
    """

    tensor: str
    slug = "signature-too-large"

    def __str__(self) -> str:
        return f"the change of tensor {self.tensor!r} is beyond the range of F32; leave it out"


@dataclass(eq=False)
class NothingToExtract(Conflict):
    """The models hold no kernel that differs, or none was selected."""

    reason: str
    slug = "nothing-to-extract"

    def __str__(self) -> str:
        return f"nothing to extract: {self.reason}"


@dataclass(eq=False)
class DoesNotFit(Conflict):
    """A patch does not fit a base: a tensor is missing, has another shape, or cannot be patched."""

    patch: str
    base: str
    reasons: list[str]
    more: int = 0
    slug = "does-not-fit"

    def __str__(self) -> str:
        rest = f"; and {self.more} more" if self.more else ""
        return f"patch {self.patch} does not fit {self.base}: {'; '.join(self.reasons)}{rest}"


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
class NotTheSameBase(Conflict):
    """The recipe requires each patch to have been extracted on this very base."""

    patch: str
    base: str
    extracted_on: str
    slug = "not-the-same-base"

    def __str__(self) -> str:
        return (
            f"patch {self.patch} was extracted on {self.extracted_on}, not on {self.base}; drop "
            '"require": "same_base" to apply it all the same'
        )


@dataclass(eq=False)
class ScaleOverflows(Conflict):
    """A patched value is too large for the tensor's dtype."""

    tensor: str
    dtype: str
    slug = "scale-overflows"

    def __str__(self) -> str:
        return f"tensor {self.tensor!r} leaves the range of {self.dtype}; use smaller scales"


@dataclass(eq=False)
class CannotBalance(Conflict):
    """Two patches of a recipe are too much alike to be balanced against each other.

    A balanced recipe lets the sum hold as much of each signature as was asked for. Where two are
    nearly the same there is no telling which of them to take: their scales would grow without need.
    """

    first: str
    second: str
    reason: str
    slug = "cannot-balance"

    def __str__(self) -> str:
        return (
            f"patches {self.first} and {self.second} cannot be balanced: {self.reason}; leave one "
            "of them out, or give plain scales"
        )


@dataclass(eq=False)
class BuildDiffers(Broken):
    """A rebuild of a recipe gave other bytes than the first build."""

    recipe: str
    path: str
    expected: str
    actual: str
    slug = "build-differs"

    def __str__(self) -> str:
        return (
            f"recipe {self.recipe}, {self.path}: its bytes hash to {self.actual}, recorded was "
            f"{self.expected}; nothing was published, check the worker's device and release"
        )


@dataclass(eq=False)
class BuildNotReady(Conflict):
    """The build is not ready, or its overlay has expired; ask for it again with POST /v1/builds."""

    recipe: str
    slug = "build-not-ready"

    def __str__(self) -> str:
        return f"build {self.recipe} is not ready; ask for it with POST /v1/builds"


@dataclass(eq=False)
class BuildUnderWay(Unavailable):
    """The build takes longer than the request would wait."""

    recipe: str
    operation: str
    slug = "build-under-way"

    def __str__(self) -> str:
        return (
            f"build {self.recipe} is under way; ask again shortly, or follow "
            f"/v1/operations/{self.operation}"
        )


@dataclass(eq=False)
class BuildFailed(Conflict):
    """The recipe could not be carried out."""

    recipe: str
    operation: str
    reason: str
    slug = "build-failed"

    def __str__(self) -> str:
        return f"build {self.recipe} failed: {self.reason}; see /v1/operations/{self.operation}"


@dataclass(eq=False)
class SeveralFiles(Conflict):
    """The model has several weight files; name one."""

    paths: list[str]
    slug = "several-files"

    def __str__(self) -> str:
        return f"the model has {len(self.paths)} weight files; name one of {', '.join(self.paths)}"


# ── operations ───────────────────────────────────────────────────────────────────────────────


@dataclass(eq=False)
class WorkerDied(Broken):
    """The worker's process died at this operation, again and again."""

    attempts: int
    reason: str
    slug = "worker-died"

    def __str__(self) -> str:
        return (
            f"the worker died {self.attempts} times at this operation (last: {self.reason}); "
            "it is not tried again"
        )


@dataclass(eq=False)
class OperationFailed(Broken):
    """The operation failed for a reason that is not the caller's."""

    reason: str
    slug = "operation-failed"

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class OperationEnded(Conflict):
    """The operation has ended and cannot be cancelled."""

    operation: str
    state: str
    slug = "operation-ended"

    def __str__(self) -> str:
        return f"operation {self.operation} has {self.state} already"


@dataclass(eq=False)
class AttemptSuperseded(Stale):
    """Another attempt at the operation has begun; this one's result is dropped."""

    operation: str
    attempt: int
    slug = "attempt-superseded"

    def __str__(self) -> str:
        return f"attempt {self.attempt} at operation {self.operation} is no longer the current one"


@dataclass(eq=False)
class KeyReused(Invalid):
    """An Idempotency-Key was used before with another request."""

    key: str
    slug = "idempotency-key-reused"

    def __str__(self) -> str:
        return f"Idempotency-Key {self.key!r} was used with another request; use a new one"


# ── requests and access ──────────────────────────────────────────────────────────────────────


@dataclass(eq=False)
class BadRequest(Invalid):
    """The request does not have the expected form."""

    reason: str
    slug = "bad-request"

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class FieldsInvalid(Invalid):
    """A field of the request is missing or wrong.

    `errors` lists each field, what is wrong with it, and by which rule.
    """

    errors: list[dict[str, str]]
    slug = "fields-invalid"

    def __str__(self) -> str:
        shown, more = self.errors[:5], len(self.errors[5:])
        told = "; ".join(f"{wrong['field']}: {wrong['message']}" for wrong in shown)
        rest = f"; and {more} more" if more else ""
        return f"{told}{rest}; see /openapi.json"


@dataclass(eq=False)
class NotReady(Unavailable):
    """A part that the service cannot do without does not answer."""

    parts: dict[str, str]
    slug = "not-ready"

    def __str__(self) -> str:
        down = [f"{part} ({state})" for part, state in self.parts.items() if state != "ok"]
        return f"not ready: {', '.join(down)}"


@dataclass(eq=False)
class TokenMissing(Unauthenticated):
    """The request needs a token."""

    scope: str
    slug = "token-missing"

    def __str__(self) -> str:
        return f"this needs a token with scope {self.scope!r}; send Authorization: Bearer TOKEN"


@dataclass(eq=False)
class TokenInvalid(Unauthenticated):
    """The token is not known, has expired or was revoked."""

    slug = "token-invalid"

    def __str__(self) -> str:
        return "the token is not known, has expired or was revoked; ask an admin for a new one"


@dataclass(eq=False)
class ScopeMissing(Forbidden):
    """The token does not allow this."""

    scope: str
    namespace: str | None = None
    slug = "scope-missing"

    def __str__(self) -> str:
        where = f" in namespace {self.namespace!r}" if self.namespace else ""
        return f"the token has no scope {self.scope!r}{where}; use one that has it"


# ── on the user's machine ────────────────────────────────────────────────────────────────────


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

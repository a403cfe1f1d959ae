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

Root and kinds are in `tree`; the leaves in one module a noun:

    names          names, digests, references          operations     long work, queue and workers
    things         what every noun has: there, gone,   uploads        bytes on their way in
                   needed, moved                       blobs          bytes that are kept, the store
    models         versions and their files            parts          database, home, device
    checkpoints    what is not converted               requests       the form of a request
    patches        extraction, fit, results            access         tokens and scopes
    recipes        what does not go together           local          files on the user's machine
    builds         recipes carried out

Each leaf carries fields, builds its own message (the thing's name and the next step) and has a
`slug` that never changes. The first line of its docstring is the problem's title, the whole
docstring its page at `/problems/{slug}`. `http/problems.py` has the only table from kind to
status, `cli/` the only one to exit code, `worker/` the only one to retry or fail.
"""

from service.errors.access import ScopeMissing, TokenInvalid, TokenMissing
from service.errors.blobs import (
    BadRange,
    BadStoreUrl,
    BlobNotFound,
    DamagedBlob,
    DamagedBlobs,
    DiskFull,
    StoreUnavailable,
)
from service.errors.builds import (
    BuildDiffers,
    BuildFailed,
    BuildNotReady,
    BuildUnderWay,
    ScaleOverflows,
)
from service.errors.checkpoints import BadCheckpoint, ConversionOverLimit, UnsafeCheckpoint
from service.errors.local import (
    AlreadyPatched,
    BadSidecar,
    FileBusy,
    FileNotAsRecorded,
    LinkedFile,
    NothingToUndo,
    NotVerified,
    OverlayDoesNotFit,
    UndoMissing,
)
from service.errors.models import (
    BadFileSet,
    BadForwardOrder,
    NotSafetensors,
    SeveralFiles,
    UnsupportedFormat,
)
from service.errors.names import BadDigest, BadName, BadReference, ReservedNamespace
from service.errors.operations import (
    AttemptSuperseded,
    KeyReused,
    NoWorker,
    OperationEnded,
    OperationFailed,
    QueueFull,
    WorkerDied,
)
from service.errors.parts import (
    DatabaseUnavailable,
    DeviceUnusable,
    HomeInUse,
    HomeUnusable,
    NotReady,
    PartFailed,
)
from service.errors.patches import (
    DoesNotFit,
    ModelsDiffer,
    NonFiniteWeights,
    NotAPatchFile,
    NothingToExtract,
    ResultsDiffer,
    SignatureTooLarge,
)
from service.errors.recipes import (
    BadRecipe,
    BadScale,
    CannotBalance,
    NotTheSameBase,
    SeveralBases,
    TwoVersionsOfOnePatch,
)
from service.errors.requests import BadRequest, FieldsInvalid
from service.errors.things import (
    AliasesPoint,
    StateMoved,
    StateNotNamed,
    StillNeeded,
    ThingDeleted,
    ThingExists,
    ThingNotFound,
)
from service.errors.tree import (
    Broken,
    Busy,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    PatchbayError,
    PreconditionMissing,
    Stale,
    StorageFull,
    TooLarge,
    Unauthenticated,
    Unavailable,
    leaves,
)
from service.errors.uploads import (
    BodyCutOff,
    BodyTooLong,
    DigestMismatch,
    PartSizeWrong,
    PartsMissing,
    UploadEnded,
    UploadSealed,
    UploadTooLarge,
)

__all__ = [
    "AliasesPoint",
    "AlreadyPatched",
    "AttemptSuperseded",
    "BadCheckpoint",
    "BadDigest",
    "BadFileSet",
    "BadForwardOrder",
    "BadName",
    "BadRange",
    "BadRecipe",
    "BadReference",
    "BadRequest",
    "BadScale",
    "BadSidecar",
    "BadStoreUrl",
    "BlobNotFound",
    "BodyCutOff",
    "BodyTooLong",
    "Broken",
    "BuildDiffers",
    "BuildFailed",
    "BuildNotReady",
    "BuildUnderWay",
    "Busy",
    "CannotBalance",
    "Conflict",
    "ConversionOverLimit",
    "DamagedBlob",
    "DamagedBlobs",
    "DatabaseUnavailable",
    "DeviceUnusable",
    "DigestMismatch",
    "DiskFull",
    "DoesNotFit",
    "FieldsInvalid",
    "FileBusy",
    "FileNotAsRecorded",
    "Forbidden",
    "Gone",
    "HomeInUse",
    "HomeUnusable",
    "Invalid",
    "KeyReused",
    "LinkedFile",
    "ModelsDiffer",
    "NoWorker",
    "NonFiniteWeights",
    "NotAPatchFile",
    "NotFound",
    "NotReady",
    "NotSafetensors",
    "NotTheSameBase",
    "NotVerified",
    "NothingToExtract",
    "NothingToUndo",
    "OperationEnded",
    "OperationFailed",
    "OverlayDoesNotFit",
    "PartFailed",
    "PartSizeWrong",
    "PartsMissing",
    "PatchbayError",
    "PreconditionMissing",
    "QueueFull",
    "ReservedNamespace",
    "ResultsDiffer",
    "ScaleOverflows",
    "ScopeMissing",
    "SeveralBases",
    "SeveralFiles",
    "SignatureTooLarge",
    "Stale",
    "StateMoved",
    "StateNotNamed",
    "StillNeeded",
    "StorageFull",
    "StoreUnavailable",
    "ThingDeleted",
    "ThingExists",
    "ThingNotFound",
    "TokenInvalid",
    "TokenMissing",
    "TooLarge",
    "TwoVersionsOfOnePatch",
    "Unauthenticated",
    "Unavailable",
    "UndoMissing",
    "UnsafeCheckpoint",
    "UnsupportedFormat",
    "UploadEnded",
    "UploadSealed",
    "UploadTooLarge",
    "WorkerDied",
    "leaves",
]

"""What a worker hands to its device process, and what comes back; importable without torch.

All of it pickles. Files that were made lie in the job's scratch folder, hashed already.

    files          what a job reads, and what it makes
    extractions    patches from pairs of models; patch files made elsewhere
    builds         overlays of recipes; digests of whole files
    similarity     signatures compared with each other and with the catalogue
    conversions    PyTorch checkpoints to safetensors
"""

from service.compute.jobs.builds import (
    Batches,
    BatchesMade,
    BuildJob,
    BuildMade,
    DigestJob,
    DigestMade,
    MadeOverlay,
    PatchInput,
    SweepJob,
    SweepMade,
)
from service.compute.jobs.conversions import (
    CheckpointInput,
    ConvertedFile,
    ConvertJob,
    ConvertMade,
    IndexInput,
    MadeIndex,
)
from service.compute.jobs.extractions import (
    ExtractJob,
    ExtractMade,
    ExtractManyJob,
    ExtractManyMade,
    MadeSignature,
    VerifyJob,
    VerifyMade,
)
from service.compute.jobs.files import MadeFile, ModelInput, WeightInput
from service.compute.jobs.similarity import (
    CompareJob,
    CompareMade,
    IdentifyJob,
    IdentifyMade,
    IndexJob,
    IndexMade,
    KnownSignature,
    Likeness,
    SignatureInput,
    SignatureMeasures,
)

__all__ = [
    "Batches",
    "BatchesMade",
    "BuildJob",
    "BuildMade",
    "CheckpointInput",
    "CompareJob",
    "CompareMade",
    "ConvertJob",
    "ConvertMade",
    "ConvertedFile",
    "DigestJob",
    "DigestMade",
    "ExtractJob",
    "ExtractMade",
    "ExtractManyJob",
    "ExtractManyMade",
    "IdentifyJob",
    "IdentifyMade",
    "IndexInput",
    "IndexJob",
    "IndexMade",
    "Job",
    "KnownSignature",
    "Likeness",
    "Made",
    "MadeFile",
    "MadeIndex",
    "MadeOverlay",
    "MadeSignature",
    "ModelInput",
    "PatchInput",
    "SignatureInput",
    "SignatureMeasures",
    "SweepJob",
    "SweepMade",
    "VerifyJob",
    "VerifyMade",
    "WeightInput",
]

Job = (
    ConvertJob
    | ExtractJob
    | ExtractManyJob
    | BuildJob
    | SweepJob
    | VerifyJob
    | DigestJob
    | IndexJob
    | CompareJob
    | IdentifyJob
)

Made = (
    ConvertMade
    | ExtractMade
    | ExtractManyMade
    | BuildMade
    | SweepMade
    | VerifyMade
    | DigestMade
    | IndexMade
    | CompareMade
    | IdentifyMade
)

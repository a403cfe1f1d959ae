"""Which kinds of operations there are."""

from collections.abc import Mapping
from typing import Final

from service.registry import (
    audits,
    builds,
    collection,
    comparisons,
    conversions,
    digests,
    extractions,
    identifications,
    patches,
    similarity,
    sweeps,
    uploads,
)
from service.worker.kinds.builds import BUILDING, SWEEPING
from service.worker.kinds.digests import DIGESTING
from service.worker.kinds.extractions import EXTRACTION
from service.worker.kinds.kind import Kind
from service.worker.kinds.models import CONVERSION
from service.worker.kinds.patches import VERIFICATION
from service.worker.kinds.similarity import COMPARISON, IDENTIFICATION, INDEXING
from service.worker.kinds.upkeep import AUDITING, COLLECTING
from service.worker.kinds.uploads import INGESTION

KINDS: Final[Mapping[str, Kind]] = {
    extractions.EXTRACT: EXTRACTION,
    builds.BUILD: BUILDING,
    sweeps.SWEEP: SWEEPING,
    conversions.CONVERT: CONVERSION,
    digests.DIGEST: DIGESTING,
    patches.VERIFY: VERIFICATION,
    uploads.INGEST: INGESTION,
    similarity.INDEX: INDEXING,
    comparisons.COMPARE: COMPARISON,
    identifications.IDENTIFY: IDENTIFICATION,
    collection.COLLECT: COLLECTING,
    audits.AUDIT: AUDITING,
}

"""Which kinds of operations there are."""

from collections.abc import Mapping
from typing import Final

from service.registry import builds, digests, extractions, patches
from service.worker.kinds.builds import BUILDING
from service.worker.kinds.digests import DIGESTING
from service.worker.kinds.extractions import EXTRACTION
from service.worker.kinds.kind import Kind
from service.worker.kinds.patches import VERIFICATION

KINDS: Final[Mapping[str, Kind]] = {
    extractions.EXTRACT: EXTRACTION,
    builds.BUILD: BUILDING,
    digests.DIGEST: DIGESTING,
    patches.VERIFY: VERIFICATION,
}

"""Collections and audits of the store."""

from typing import Annotated

from pydantic import Field

from service.schemas.wire import Body, Digest

DAY_S = 24 * 3600


class RequestCollection(Body):
    """Remove blobs that nothing needs."""

    dry_run: bool = Field(default=False, description="Count them, and remove nothing.")
    older_than_s: int = Field(
        default=DAY_S, ge=0, lt=2**31, description="Spare what was stored in so many last seconds."
    )


class RequestAudit(Body):
    """Read blobs back against their digests."""

    digests: Annotated[list[Digest], Field(max_length=10_000)] = Field(
        default=[], description="Empty: all blobs, those first that were verified longest ago."
    )
    bytes_per_s: int | None = Field(default=None, gt=0, lt=2**53, description="How fast at most.")

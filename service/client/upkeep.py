"""Keeping the store in order, for administrators."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.client.transport import Transport
from service.names import Digest
from service.schemas.operations import OperationView
from service.schemas.upkeep import DAY_S, RequestAudit, RequestCollection


@dataclass(frozen=True, slots=True)
class Upkeep:
    """The service's collections and audits."""

    transport: Transport

    def collect(self, *, dry_run: bool = False, older_than_s: int = DAY_S) -> OperationView:
        """Have blobs removed that nothing needs, or counted."""
        body = RequestCollection(dry_run=dry_run, older_than_s=older_than_s)
        return self.transport.ask("POST", "/v1/collections", OperationView, body=body)

    def audit(
        self, digests: Sequence[Digest] = (), *, bytes_per_s: int | None = None
    ) -> OperationView:
        """Have blobs read back against their digests; without `digests`, all of them."""
        body = RequestAudit(digests=list(digests), bytes_per_s=bytes_per_s)
        return self.transport.ask("POST", "/v1/audits", OperationView, body=body)

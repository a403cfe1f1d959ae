"""Tokens: make, list, revoke."""

from collections.abc import Iterator
from dataclasses import dataclass

from service.client import paths
from service.client.transport import Transport
from service.schemas.operations import MintedToken, MintToken, TokenView


@dataclass(frozen=True, slots=True)
class Tokens:
    """The service's tokens."""

    transport: Transport

    def listed(self) -> Iterator[TokenView]:
        """Every token, without its text."""
        return self.transport.pages("/v1/tokens", TokenView)

    def mint(self, wanted: MintToken) -> MintedToken:
        """Make a token; its text is in the answer and nowhere else."""
        return self.transport.ask("POST", "/v1/tokens", MintedToken, body=wanted)

    def revoke(self, token_id: int) -> None:
        """Make a token worthless from now on."""
        self.transport.send("DELETE", paths.within("/v1/tokens", token_id))

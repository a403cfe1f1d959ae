"""Channels: mutable names that point at a recipe; every change says which move it was decided on.

A patch of a channel is written `namespace.name` in an address, as in a recipe string.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal

from service import names
from service.client import paths
from service.client.conditions import Seen, conditions
from service.client.downloads import Downloaded, Progress, fetch, silent
from service.client.recipes import Require
from service.client.transport import Transport
from service.schemas.recipes import (
    ChannelView,
    MoveView,
    PointChannel,
    RecipeBody,
    RecipePart,
    Rescale,
    Revert,
)

_MARGIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Channels:
    """The service's channels."""

    transport: Transport

    def listed(self) -> Iterator[ChannelView]:
        """Every channel."""
        return self.transport.pages("/v1/channels", ChannelView)

    def get(self, name: str) -> ChannelView:
        """One channel, with its last move."""
        return self.transport.get(paths.channel(name), ChannelView)

    def moves(self, name: str) -> Iterator[MoveView]:
        """A channel's history, newest first."""
        return self.transport.pages(f"{paths.channel(name)}/moves", MoveView)

    def point(
        self,
        name: str,
        recipe: RecipeBody | str,
        *,
        seen: Seen,
        require: Require = "same_architecture",
    ) -> MoveView:
        """Point a channel at a recipe; `seen` is its last move, "nothing" where it is new."""
        return self.transport.ask(
            "PUT",
            paths.channel(name),
            MoveView,
            body=PointChannel(recipe=recipe, require=require),
            headers=conditions(seen),
        )

    def add(self, name: str, patch: str, scale: Decimal, *, seen: Seen) -> MoveView:
        """Add a patch to the channel's recipe."""
        return self.transport.ask(
            "POST",
            f"{paths.channel(name)}/patches",
            MoveView,
            body=RecipePart(patch=patch, scale=scale),
            headers=conditions(seen),
        )

    def rescale(self, name: str, patch: str, scale: Decimal, *, seen: Seen) -> MoveView:
        """Give a patch of the channel another scale; 0 keeps it listed but off."""
        return self.transport.ask(
            "PATCH",
            _part(name, patch),
            MoveView,
            body=Rescale(scale=scale),
            headers=conditions(seen),
        )

    def drop(self, name: str, patch: str, *, seen: Seen) -> MoveView:
        """Take a patch off the channel's recipe."""
        return self.transport.ask("DELETE", _part(name, patch), MoveView, headers=conditions(seen))

    def revert(self, name: str, to: int | Literal["clean"], *, seen: Seen) -> MoveView:
        """Go back to an earlier move, or to the clean base."""
        return self.transport.ask(
            "POST",
            f"{paths.channel(name)}/revert",
            MoveView,
            body=Revert(to=to),
            headers=conditions(seen),
        )

    def delete(self, name: str, *, seen: Seen) -> None:
        """Delete a channel; its history stays."""
        self.transport.send("DELETE", paths.channel(name), headers=conditions(seen))

    def weights(
        self,
        name: str,
        into: Path,
        *,
        path: str | None = None,
        etag: str | None = None,
        wait_s: int = 0,
        progress: Progress = silent,
    ) -> Downloaded | None:
        """Fetch what the channel points at; None where that still is the file of `etag`.

        With `wait_s` the service waits that long for a move before it says so.
        """
        headers = {"If-None-Match": etag} if etag else {}
        if wait_s:
            headers["Prefer"] = f"wait={wait_s}"
        url = paths.within(paths.channel(name), "weights", path)
        return fetch(
            self.transport,
            url,
            into,
            headers=headers,
            progress=progress,
            silence_s=wait_s + _MARGIN_S,
        )


def _part(channel: str, patch: str) -> str:
    found = names.patch_name(patch)
    return f"{paths.channel(channel)}/patches/{found.namespace}.{found.name}"

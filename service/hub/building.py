"""Have a recipe built and hashed, within the seconds that a client waits for an answer."""

import asyncio
from typing import Final

from sqlalchemy.orm import Session

from service.http import serving, waiting
from service.hub.revisions import Asked, pinning
from service.names import Digest

WAIT_S: Final = 8.0
"""Clients give up after 10 s without a first byte; told to come again, they do."""


async def hashed(asked: Asked) -> None:
    """Wait until the sha256 of every file of a recipe is known.

    Raises `BuildUnderWay` where that takes longer, `BuildNotReady` where the caller may not start
    a build, `BuildFailed`, `NoWorker`, `QueueFull` and `HubError`.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + WAIT_S
    parts = asked.parts

    def look(session: Session) -> tuple[Digest, str | None]:
        build, operation = serving.ask(session, parts, pinning(asked)(session), asked.caller)
        recipe = Digest(build.recipe_digest)
        return recipe, operation.id if operation else None

    recipe, operation_id = await waiting.read(parts.sessions, look)
    if operation_id is not None:
        await serving.carried_out(parts, recipe, operation_id, deadline - clock())
    operation_id = await waiting.read(parts.sessions, lambda s: serving.hashing(s, recipe))
    if operation_id is not None:
        await serving.carried_out(parts, recipe, operation_id, max(deadline - clock(), 0))

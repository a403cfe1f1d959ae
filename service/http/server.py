"""The web server: ends what merely waits at once, and lets transfers end in their time."""

import socket
from collections.abc import Callable

import uvicorn


class Server(uvicorn.Server):
    """uvicorn's server; `end_waits` is called when it is to end.

    It takes no more connections then. Responses under way may go on for the configuration's
    `timeout_graceful_shutdown`; a second Ctrl-C ends them.
    """

    def __init__(self, config: uvicorn.Config, end_waits: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_waits = end_waits

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; what is still under way after the time of grace is cut off."""
        self._end_waits()
        await super().shutdown(sockets)

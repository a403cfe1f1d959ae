"""What our HTTP server offers beyond plain ASGI: cutting a connection off, and sending files.

`uvicorn.run(app, http=Protocol)`. Two extensions, absent under another server:

`patchbay.abort`. An ASGI application cannot end a connection whose client reads nothing: uvicorn
closes it once what it holds is sent, so never, and each such client keeps a socket and about 1 MiB.
This drops both at once.

`http.response.zerocopysend`, as ASGI's specification has it: a part of a file goes from the page
cache to the socket by `os.sendfile` and never enters this process. Not offered under TLS. The
socket takes what it has room for and the loop is told when it has room again, so a slow client
holds no thread; after each 512 KiB other connections have their turn. Measured with eight readers
on two busy cores, for turns of 256 KiB, 1 MiB and 4 MiB: 0.59, 0.49 and 0.28 CPU-seconds per GiB,
and a median of 4, 12 and 56 ms for a small request beside them; a thread that sends until the
socket is full took 0.64 CPU-seconds per GiB.

Leans on names inside uvicorn (tried with 0.54); the tests of `sender` run through it.
"""

import asyncio
import os
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

ABORT: Final = "patchbay.abort"
ZERO_COPY: Final = "http.response.zerocopysend"
TURN_BYTES: Final = 2**19
"""So much goes out before other connections have their turn."""


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol on httptools, with two more extensions."""

    def on_message_begin(self) -> None:
        """Offer the extensions with each request."""
        super().on_message_begin()
        offered: dict[str, dict[object, object]] = {ABORT: {"abort": self.transport.abort}}
        if self.scheme == "http" and hasattr(os, "sendfile"):
            offered[ZERO_COPY] = {}
        self.scope["extensions"] = offered

    def on_headers_complete(self) -> None:
        """Let the response that begins here take the messages of the extension, too."""
        super().on_headers_complete()
        if getattr(self.cycle, "scope", None) is self.scope:  # else: an upgrade
            self.cycle.send = _Sender(self.cycle, self.loop)  # type: ignore[method-assign]


class _Sender:
    """Stands before the `send` of one response."""

    def __init__(self, cycle: RequestResponseCycle, loop: asyncio.AbstractEventLoop) -> None:
        self._cycle = cycle
        self._loop = loop
        self._send = cycle.send

    async def __call__(self, message: Any) -> None:
        """Send a message of ASGI's."""
        if message["type"] != ZERO_COPY:
            await self._send(message)
            return
        await self._send_file(message["file"].fileno(), message["offset"], message["count"])
        if not message.get("more_body", False):
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_file(self, file: int, start: int, count: int) -> None:
        """Send `count` bytes of a file; raises `EOFError` where it ends before."""
        cycle = self._cycle
        if not cycle.response_started or cycle.response_complete or cycle.chunked_encoding:
            raise RuntimeError("a file can be sent only in a response of known length")
        if cycle.scope["method"] == "HEAD":
            return
        if count > cycle.expected_content_length:
            raise RuntimeError("Response content longer than Content-Length")
        await self._drain()
        if cycle.disconnected:
            return
        # A number of its own: the loop refuses to watch a descriptor that a transport owns, and
        # the transport may close that one meanwhile.
        peer = os.dup(cycle.transport.get_extra_info("socket").fileno())
        try:
            await self._copy(peer, file, start, start + count)
        except (BrokenPipeError, ConnectionError):
            cycle.transport.abort()
        else:
            cycle.expected_content_length -= count
        finally:
            os.close(peer)

    async def _copy(self, peer: int, file: int, start: int, end: int) -> None:
        while start < end:
            try:
                sent = os.sendfile(peer, file, start, min(TURN_BYTES, end - start))
            except BlockingIOError:
                await self._room(peer)
                continue
            if not sent:
                raise EOFError(f"the file ends at byte {start}, not at {end}")
            start += sent
            await asyncio.sleep(0)

    async def _room(self, peer: int) -> None:
        """Wait until the socket takes more."""
        room = self._loop.create_future()
        self._loop.add_writer(peer, _resolve, room)
        try:
            await room
        finally:
            self._loop.remove_writer(peer)

    async def _drain(self) -> None:
        """Wait until all that was written is on the wire, so that the file follows it."""
        transport = self._cycle.transport
        if transport.get_write_buffer_size():
            transport.set_write_buffer_limits(high=0)  # tells the flow control to pause
            await self._cycle.flow.drain()
            if not transport.is_closing():
                transport.set_write_buffer_limits()


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)

"""What our HTTP server offers beyond plain ASGI: cutting a connection off, and sending files.

`uvicorn.run(app, http=Protocol)`. Two extensions, absent under another server:

`patchbay.abort`. An ASGI application cannot end a connection whose client reads nothing: uvicorn
closes it once what it holds is sent, so never, and each such client keeps a socket and about 1 MiB.
This drops both at once.

`http.response.zerocopysend`, as ASGI's specification has it: a part of a file goes from the page
cache to the socket by `os.sendfile` and never enters this process. Not offered under TLS. Whenever
the socket has room, up to 1 MiB goes out, and then other connections have their turn; a slow client
holds no thread. On busy cores a turn of 512 KiB took a tenth more CPU, one of 2 MiB as much, and a
thread that sends until the socket is full took half as much again. With 1 MiB and eight readers on
two quiet cores: 0.12 CPU-seconds per GiB (nginx 0.09), small requests beside them within 5 ms.

A client that takes nothing for `stalled_after_s`, a field beside those of the specification, is a
`TimeoutError`.

And four bounds that uvicorn leaves to a proxy before it: on the bytes of a request's head (10 MB of
header lines took 160 MB here) and the time it may take, on requests sent ahead, and a client that
sent some ahead and left ends the response under way, too.

Leans on names inside uvicorn (tried with 0.54); the tests of `sender` run through it.
"""

import asyncio
import os
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

ABORT: Final = "patchbay.abort"
ZERO_COPY: Final = "http.response.zerocopysend"
TURN_BYTES: Final = 2**20
"""So much goes out before other connections have their turn."""
HEAD_BYTES: Final = 2**17
"""A request's head may be so long, not counting what came with the first read of it."""
HEAD_S: Final = 60.0
"""A connection closes where no head of a request is complete after so long."""
SENT_AHEAD: Final = 100
"""So many requests may wait for the response before theirs."""


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol on httptools, with two more extensions, and bounds."""

    _running: RequestResponseCycle | None = None
    _head_bytes: int | None = None
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the client time for the head of its first request."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes of requests, but not of a head without end."""
        is_within_head = self._head_bytes is not None
        super().data_received(data)
        if is_within_head and self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.send_400_response("The head of the request is too long.")
        if not self._is_responding:
            self._await_head()

    def on_message_begin(self) -> None:
        """Offer the extensions with each request."""
        super().on_message_begin()
        self._head_bytes = 0
        offered: dict[str, dict[object, object]] = {ABORT: {"abort": self.transport.abort}}
        if self.scheme == "http" and hasattr(os, "sendfile"):
            offered[ZERO_COPY] = {}
        self.scope["extensions"] = offered

    def on_headers_complete(self) -> None:
        """Let the response that begins here take the messages of the extension, too."""
        self._end_head()
        super().on_headers_complete()
        if getattr(self.cycle, "scope", None) is self.scope:  # else: an upgrade
            self.cycle.send = _Sender(self.cycle, self.loop)  # type: ignore[method-assign]
        if len(self.pipeline) > SENT_AHEAD:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, though not in the midst of a response."""
        if self._is_responding:
            self.transport.abort()
        else:
            super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the response under way: uvicorn tells the one that was asked for last."""
        self._end_head()
        super().connection_lost(exc)
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()

    @property
    def _is_responding(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self.transport.close)

    def _end_head(self) -> None:
        self._head_bytes = None
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


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
        file, start, count = message["file"].fileno(), message["offset"], message["count"]
        await self._send_file(file, start, count, message.get("stalled_after_s"))
        if not message.get("more_body", False):
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_file(self, file: int, start: int, count: int, patience: float | None) -> None:
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
            await asyncio.sleep(0)  # else who sends on and on would never hear of it
            return
        # A number of its own: the loop refuses to watch a descriptor that a transport owns, and
        # the transport may close that one meanwhile.
        peer = os.dup(cycle.transport.get_extra_info("socket").fileno())
        try:
            await _Copy(self._loop, peer, file, start, start + count).run(patience)
        except ConnectionError:
            cycle.transport.abort()
            await asyncio.sleep(0)
        else:
            cycle.expected_content_length -= count
        finally:
            os.close(peer)

    async def _drain(self) -> None:
        """Wait until all that was written is on the wire, so that the file follows it."""
        transport = self._cycle.transport
        if transport.get_write_buffer_size():
            transport.set_write_buffer_limits(high=0)  # tells the flow control to pause
            await self._cycle.flow.drain()
            if not transport.is_closing():
                transport.set_write_buffer_limits()


class _Copy:
    """Bytes `[start, end)` of a file on their way to a socket."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, peer: int, file: int, start: int, end: int
    ) -> None:
        self._loop = loop
        self._peer = peer
        self._file = file
        self._at = start
        self._end = end
        self._over = loop.create_future()
        self._moved_at = loop.time()
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, stalled_after_s: float | None) -> None:
        """Send all of it; raises `EOFError`, `TimeoutError`, and what the socket raises."""
        self._loop.add_writer(self._peer, self._turn)
        if stalled_after_s is not None:
            self._look(stalled_after_s)
        try:
            await self._over
        finally:
            self._loop.remove_writer(self._peer)
            if self._timer is not None:
                self._timer.cancel()

    def _turn(self) -> None:
        """Send what the socket has room for, within one turn's bound."""
        if self._over.done():
            return
        count = min(TURN_BYTES, self._end - self._at)
        try:
            sent = os.sendfile(self._peer, self._file, self._at, count)
        except BlockingIOError:
            return
        except OSError as error:
            self._over.set_exception(error)
            return
        if not sent:
            self._over.set_exception(EOFError(f"the file ends at byte {self._at}"))
            return
        self._at += sent
        self._moved_at = self._loop.time()
        if self._at == self._end:
            self._over.set_result(None)

    def _look(self, stalled_after_s: float) -> None:
        """Give up where nothing has moved for so long; look again otherwise."""
        left_s = self._moved_at + stalled_after_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look, stalled_after_s)
        elif not self._over.done():
            self._over.set_exception(TimeoutError("the client takes nothing"))

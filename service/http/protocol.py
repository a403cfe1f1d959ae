"""What our HTTP server offers beyond plain ASGI: cutting off a connection.

`uvicorn.run(app, http=Protocol)`. An ASGI application cannot end a connection whose client reads
nothing: uvicorn closes it once what it holds is sent, so never, and each such client keeps a socket
and about 1 MiB. The extension `patchbay.abort` drops both at once. Under another server it is
absent, and a broken response ends as that server ends it.

Leans on names inside uvicorn (tried with 0.54); the tests of `sender` run through it.
"""

from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

ABORT: Final = "patchbay.abort"


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol on httptools, with one more extension."""

    def on_message_begin(self) -> None:
        """Offer the extension with each request."""
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"abort": self.transport.abort}}

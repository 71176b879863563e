"""uvicorn's reading of HTTP, with bounds for the head of a request and errors of our shape.

uvicorn keeps as many bytes of a head as a client cares to send, waits for the rest of it for ever,
and answers what is not HTTP in plain text.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from localplane_gateway.errors import InvalidRequestError

LARGEST_HEAD_BYTES = 64 * 1024
"""Request line and headers. The pieces that begin and end them are not counted: they may hold other things."""
HEAD_SECONDS = 30.0
"""How long a client may take for them."""
STALLED_SECONDS = 2.0
"""How long a client may read nothing of what was written for it once the server stops."""

_HEADERS = (
    b"content-type: application/json\r\n"
    b"x-content-type-options: nosniff\r\n"
    b"connection: close\r\n"
    b"\r\n"
)


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_in_head = True
        self._has_begun = False
        self._head_bytes = 0
        # Most heads come in one piece, and then there is none.
        self._head_timer: asyncio.TimerHandle | None = None
        self._stalled_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._forget_head()
        if self._stalled_timer is not None:
            self._stalled_timer.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Let the answer end that is under way, unless nobody reads it: that could take for ever."""
        super().shutdown()
        self._look_for_reader(0)

    def data_received(self, data: bytes) -> None:
        """Take what has come, unless it is the rest of a head that is too large."""
        if self._head_bytes > LARGEST_HEAD_BYTES:
            self._refuse(f"the headers are larger than {LARGEST_HEAD_BYTES} bytes")
            return
        self._has_begun = False
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes = 0 if self._has_begun else self._head_bytes + len(data)
            if self._head_timer is None:
                self._watch_head()
        elif self._head_timer is not None:
            self._forget_head()

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        self._is_in_head = self._has_begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that it has ended, and begin to answer."""
        self._is_in_head = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse("cannot read the request: it is not HTTP")

    def _look_for_reader(self, unread_before: int) -> None:
        unread = self.transport.get_write_buffer_size()
        if unread and unread == unread_before:
            self.transport.abort()
        else:
            self._stalled_timer = self.loop.call_later(
                STALLED_SECONDS, self._look_for_reader, unread
            )

    def _watch_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _forget_head(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, message: str) -> None:
        self._is_in_head = False
        if self.transport.is_closing():
            return
        answering: Any = self.cycle  # uvicorn's type leaves out that there may be none
        if answering is None or answering.response_complete:
            error = InvalidRequestError(message)
            body = error.body()
            line = f"HTTP/1.1 {error.status} Bad Request\r\ncontent-length: {len(body)}\r\n"
            self.transport.write(line.encode() + _HEADERS + body)
        # Else the error would land in the midst of the answer to the request before.
        self.transport.close()

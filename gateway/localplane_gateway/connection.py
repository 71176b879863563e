"""How answers reach the socket."""

from __future__ import annotations

import asyncio
from typing import Any

from localplane_gateway.http_protocol import HttpProtocol

_MOST_BYTES = 64 * 1024
"""A stream that never waits would pile up without end."""


class Connection(HttpProtocol):
    """uvicorn's connection, with a transport that joins writes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to read requests."""
        super().connection_made(JoiningTransport(transport, self.loop))


class JoiningTransport(asyncio.Transport):
    """Joins what is written before the event loop goes on, and hands it on in one piece.

    uvicorn writes head and body of an answer one after the other, and uvloop sends each at once: two
    system calls and two packets, where the second costs a quarter of what the least request does.
    """

    __slots__ = ("_chunks", "_loop", "_size", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._chunks: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:  # type: ignore[override] # uvicorn has nothing but bytes
        """Write, together with what follows at once."""
        if not self._chunks:
            self._loop.call_soon(self._send)
        self._chunks.append(data)
        self._size += len(data)
        if self._size > _MOST_BYTES:
            self._send()

    def close(self) -> None:
        """Close once everything has been written."""
        self._send()
        self._transport.close()

    def abort(self) -> None:
        """Close at once; what was not sent is dropped."""
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        """Get how many bytes wait for the client to read."""
        size: int = self._transport.get_write_buffer_size()
        return size + self._size

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        """Take no more from the client for now."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take from the client again."""
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Get what is known of the socket."""
        return self._transport.get_extra_info(name, default)

    def _send(self) -> None:
        chunks = self._chunks
        if chunks and not self._transport.is_closing():
            if len(chunks) == 1:
                self._transport.write(chunks[0])
            elif self._size > _MOST_BYTES:
                # Joining would copy what is large; the system takes the pieces as they are.
                self._transport.writelines(chunks)
            else:
                self._transport.write(b"".join(chunks))
        self._size = 0
        chunks.clear()

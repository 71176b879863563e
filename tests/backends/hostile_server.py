"""An HTTP server that answers as a test says, byte for byte, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

SECONDS = 20.0

HEAD_OF_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
HEAD_OF_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
MODELS = {"object": "list", "data": [{"id": "far", "object": "model", "owned_by": "somebody"}]}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any

    @property
    def key(self) -> str | None:
        """What it presented."""
        return self.headers.get("authorization")


Answer = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class Hostile:
    """The server."""

    url: str = ""
    """Where it is."""
    answers: dict[str, Answer] = field(default_factory=dict)
    """How each path is answered. Others are not found."""
    asked: list[Asked] = field(default_factory=list)
    """Requests, in order."""
    connections: int = 0
    """Connections that were made."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client closes its connection."""
    _serving: set[asyncio.Task[None]] = field(default_factory=set)

    def last(self, path: str) -> Asked:
        """Return the last request for a path."""
        return next(one for one in reversed(self.asked) if one.path == path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        try:
            await self._answer_all(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def close(self) -> None:
        """End all connections."""
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                asked = await _request(reader)
                self.asked.append(asked)
                answering = asyncio.ensure_future(
                    self.answers.get(asked.path, not_found)(asked, writer)
                )
                watching = asyncio.ensure_future(self._watch(reader))
                try:
                    await asyncio.wait((answering, watching), return_when=asyncio.FIRST_COMPLETED)
                    if not answering.done():
                        break
                finally:
                    watching.cancel()
                    answering.cancel()
                answering.result()
                if writer.is_closing():
                    break

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        # Clients here send nothing before they were answered, so this waits for the end.
        while not reader.at_eof():
            if reader.exception() is not None:
                break
            await asyncio.sleep(0.005)
        self.gone.set()


@contextlib.asynccontextmanager
async def hostile(
    *, tls: ssl.SSLContext | None = None, **answers: Answer
) -> AsyncGenerator[Hostile]:
    """Run a server for as long as the context is open.

    It is healthy and lists one model, `far`, unless told otherwise. `chat` and the like name their routes.
    """
    server = Hostile()
    server.answers = {
        "/health": as_json({"status": "ok"}),
        "/v1/models": as_json(MODELS),
        **{ROUTES[name]: answer for name, answer in answers.items()},
    }
    listener = await asyncio.start_server(server._serve, "127.0.0.1", 0, ssl=tls)
    host, port = listener.sockets[0].getsockname()[:2]
    server.url = f"{'https' if tls else 'http'}://{host}:{port}"
    try:
        yield server
    finally:
        listener.close()
        await server.close()
        await listener.wait_closed()


ROUTES = {
    "chat": "/v1/chat/completions",
    "completion": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "models": "/v1/models",
    "health": "/health",
    "tokenize": "/tokenize",
    "detokenize": "/detokenize",
    "metrics": "/metrics",
    "processes": "/api/ps",
}


def raw(*pieces: bytes, close: bool = True) -> Answer:
    """Answer with these bytes, each sent by itself, then close the connection."""

    async def answer(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        if close:
            writer.close()

    return answer


def with_status(status: str, body: bytes, *headers: str, kind: str = "application/json") -> Answer:
    """Answer with a status and a body; the connection stays."""
    head = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return raw("\r\n".join(head).encode() + b"\r\n\r\n" + body, close=False)


def as_json(value: Any) -> Answer:
    """Answer well, with a value."""
    return with_status("200 OK", json.dumps(value).encode())


def as_error(status: int, body: Any) -> Answer:
    """Answer with an error."""
    return with_status(f"{status} Bad", json.dumps(body).encode())


def event_stream(*pieces: bytes) -> Answer:
    """Answer with a stream of these pieces, as they are, until the connection is closed."""
    return raw(HEAD_OF_STREAM, *pieces)


def chunked(*pieces: bytes, ends: bool = True) -> Answer:
    """Answer with a stream in HTTP's chunks; without its end it is cut off."""
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    framed = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    return raw(head, *framed, *([b"0\r\n\r\n"] if ends else []), close=not ends)


def then_silence(*pieces: bytes) -> Answer:
    """Answer with these bytes, then with nothing for ever."""

    async def answer(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(pieces))
        await writer.drain()
        await asyncio.Event().wait()

    return answer


def event(value: Any) -> bytes:
    """Return one event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def piece(text: str, reason: str | None = None, **rest: Any) -> dict[str, Any]:
    """Return a piece of a chat."""
    return {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}],
        **rest,
    }


USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
STREAM = (
    event(piece("a")),
    event(piece("b")),
    event(piece("", "stop")),
    event({"object": "chat.completion.chunk", "choices": [], "usage": USAGE}),
    b"data: [DONE]\n\n",
)
"""A chat of two tokens, as it should be."""


async def not_found(_asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Answer that there is no such path."""
    await with_status("404 Not Found", b'{"error": {"message": "nothing here"}}')(_asked, writer)


async def _request(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(":") for line in head[1:-2])
    }
    content = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, path, headers, json.loads(content) if content else None)

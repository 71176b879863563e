"""One HTTP request and its answer."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from starlette.types import Receive, Scope, Send

from localplane_gateway.errors import BodyTooLargeError, GatewayError, Headers
from localplane_gateway.limits import drain

JSON = b"application/json"

_KEY = "localplane.exchange"
_CREDENTIALS = frozenset({b"authorization", b"cookie", b"x-api-key", b"xi-api-key"})
# Random once: each look at the system's random numbers has other threads take over the interpreter.
_PROCESS_ID = secrets.token_hex(6).encode()
_numbers = itertools.count(1)
_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class Exchange:
    """A request, what became known of it on its way inwards, and the means to answer it.

    Every answer goes through it, so that each has the same headers, a HEAD request gets no body,
    and the status is known at the end.
    """

    __slots__ = (
        "_answer_headers",
        "_send",
        "body",
        "headers",
        "is_head",
        "method",
        "outcome",
        "path_values",
        "receive",
        "request_id",
        "route",
        "scope",
        "started",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self._send = send
        self.method: str = scope["method"]
        self.is_head = self.method == "HEAD"
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        """Headers of the request by lower-case name; the last one wins."""
        given = self.headers.get(b"x-request-id")
        if given is None or not _SANE_ID.fullmatch(given):
            given = b"%s-%x" % (_PROCESS_ID, next(_numbers))
        self.request_id = given
        """The client's own identifier of the request where it is a sane one, else a new one."""
        self.route = ""
        """Path of the operation as it stands in the document. Empty when there is none."""
        self.path_values: Mapping[str, str] = {}
        """Values from the path, decoded, by their names."""
        self.body: dict[str, Any] = {}
        """The body as JSON object. Empty when there is none."""
        self.started = False
        """Whether the client has been sent the status."""
        self.outcome = 500
        """The status that was sent, or would have been, had the stream failed before it began."""
        self._answer_headers: Headers = [
            (b"x-request-id", self.request_id),
            (b"x-content-type-options", b"nosniff"),
        ]
        scope[_KEY] = self

    @staticmethod
    def of(scope: Scope) -> Exchange:
        """Get the exchange that a scope belongs to."""
        exchange: Exchange = scope[_KEY]
        return exchange

    def leave(self) -> None:
        """Let go of the request: memory that holds itself is freed only by a sweep through all."""
        del self.scope[_KEY]

    @property
    def raw_path(self) -> bytes:
        """The path as the client sent it: encoded, without the query."""
        raw: bytes | None = self.scope.get("raw_path")
        return raw or quote(self.scope["path"]).encode()

    @property
    def credentials(self) -> str | None:
        """The API key, in whichever of the usual ways it was given.

        What gRPC could not carry is no key.
        """
        if _CREDENTIALS.isdisjoint(self.headers):
            return None
        key = self._authorization() or self._header("x-api-key") or self._header("xi-api-key")
        key = key or self._cookie("token")
        return key if key.isascii() and key.isprintable() and key else None

    def add_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Add headers to the answer that is still to come."""
        self._answer_headers.extend(headers)

    async def respond(
        self,
        status: int,
        body: bytes,
        content_type: bytes = JSON,
        *,
        headers: Headers | None = None,
    ) -> None:
        """Answer with a whole body."""
        self.started = True
        self.outcome = status
        all_headers = [
            (b"content-type", content_type),
            (b"content-length", str(len(body)).encode()),
            *(headers or ()),
            *self._answer_headers,
        ]
        # Not through `start` and `end`: this is the way of nearly all answers.
        await self._send({"type": "http.response.start", "status": status, "headers": all_headers})
        content = b"" if self.is_head else body
        await self._send({"type": "http.response.body", "body": content})

    async def respond_empty(self, status: int, *, headers: Headers) -> None:
        """Answer without a body and without a media type."""
        self.started = True
        self.outcome = status
        all_headers = [*headers, *self._answer_headers]
        await self._send({"type": "http.response.start", "status": status, "headers": all_headers})
        await self.end(b"")

    async def fail(self, error: GatewayError) -> None:
        """Answer with an error."""
        if not isinstance(error, BodyTooLargeError):
            await self.respond(error.status, error.body(), headers=error.headers)
            return
        # The client is still sending. Closing now would reset the connection before it has read the
        # answer, so what comes is thrown away for a while.
        body = error.body()
        length = (b"content-length", str(len(body)).encode())
        await self.start(error.status, JSON, headers=[length, *error.headers])
        await self.write(body)
        if b"expect" not in self.headers:  # else it waits for leave, which it will not get
            await drain(self.receive)
        await self.end(b"")

    async def start(
        self, status: int, content_type: bytes, *, headers: Headers | None = None
    ) -> None:
        """Begin an answer."""
        self.started = True
        self.outcome = status
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-type", content_type),
                    *(headers or ()),
                    *self._answer_headers,
                ],
            }
        )

    async def write(self, chunk: bytes) -> None:
        """Send a piece of the body; waits while the client is slow to read."""
        if not self.is_head:
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self, chunk: bytes) -> None:
        """Send the last piece of the body."""
        await self._send({"type": "http.response.body", "body": b"" if self.is_head else chunk})

    def _header(self, name: str) -> str:
        return self.headers.get(name.encode(), b"").decode("latin-1").strip()

    def _authorization(self) -> str:
        value = self._header("authorization")
        scheme, _, token = value.partition(" ")
        if scheme.lower() == "bearer":
            return token.strip()
        # LocalAI's clients may send the key alone. Another scheme is no key.
        return "" if token else value

    def _cookie(self, name: str) -> str:
        for part in self._header("cookie").split(";"):
            key, _, value = part.strip().partition("=")
            if key == name:
                return value.strip('"')
        return ""

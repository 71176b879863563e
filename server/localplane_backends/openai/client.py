"""The HTTP client of one server."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import grpc
import httpcore

from localplane_backends.openai import errors
from localplane_backends.openai.errors import ServerError
from localplane_backends.openai.events import EventReader, EventTooLargeError
from localplane_backends.openai.registration import Registration

logger = logging.getLogger(__name__)

LARGEST_ANSWER = 50 * 1024 * 1024
"""Bytes of a whole answer: as much as a message of the backend protocol holds."""
LARGEST_ERROR = 64 * 1024
"""Bytes that are read of an answer that tells of an error."""
KEEP_SECONDS = 4.0
"""How long a connection is kept that is not used. Many servers close theirs after 5."""
MOST_KEPT = 64
"""Connections that are kept though nobody uses them."""
STALE_SECONDS = 1.0
"""How soon it is seen that a kept connection was closed by the server. What breaks later is no such thing."""
WRITE_SECONDS = 60.0
"""How long the server may take no more bytes of a request."""
REST_SECONDS = 0.5
"""How long the end of a stream may take after its last event; without it the connection cannot be kept."""
DONE = b"[DONE]"
EVENTS = "text/event-stream"
JSON = "application/json"


class Client:
    """Calls one server. Cancelling the task of a call closes its connection.

    Redirects are not followed, and nothing is taken from the environment: no proxy, no password file.
    """

    def __init__(self, registration: Registration, url: str, key: str) -> None:
        """Connect on first use.

        Args:
            registration: How to call it.
            url: Where its API is. A URL without a path means that the API is at `/v1`.
            key: What it knows its callers by. Empty for none.

        Raises:
            ServerError: If the files of the registration cannot be used.
        """
        self._secrets = (*registration.secrets, *([key] if key else []))
        origin, path = _split(url)
        self._api = origin + (path or "/v1")
        self._root = origin + path.removesuffix("/v1")
        self._timeout = registration.timeout
        self._timeouts = {
            "connect": registration.connect_timeout,
            "read": registration.timeout,
            "write": WRITE_SECONDS,
        }
        headers = {"Accept-Encoding": "identity", "User-Agent": "localplane"}
        headers["Host"] = urlsplit(url).netloc
        if key:
            headers["Authorization"] = f"Bearer {key}"
        # A header of the operator's takes the place of ours, whatever its case.
        headers = {name.lower(): value for name, value in headers.items()}
        headers |= {name.lower(): value for name, value in registration.headers.items()}
        self._headers = headers
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_trust(registration, is_needed=url.startswith("https:")),
            proxy=_proxy(registration.proxy),
            # How many calls there are is the caller's affair.
            max_connections=None,
            max_keepalive_connections=MOST_KEPT,
            keepalive_expiry=KEEP_SECONDS,
        )
        self._is_closed = False

    def api(self, path: str) -> str:
        """Return the URL of a path of OpenAI's API."""
        return self._api + path

    def root(self, path: str) -> str:
        """Return the URL of a path beside it, where servers have what OpenAI does not."""
        return self._root + path

    async def get(self, url: str, *, seconds: float) -> Any:
        """Return what the server answers: a value of JSON, or else text.

        Raises:
            ServerError: If it answers with an error, or not in time.
        """
        with self._errors(seconds):
            async with asyncio.timeout(seconds), self._opened("GET", url, None) as response:
                content = await _read(response, LARGEST_ANSWER)
        if _kind(response) == JSON:
            return _parsed(content)
        return content.decode("utf-8", "replace")

    async def post(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the object that the server answers a body with.

        Raises:
            ServerError: If it answers with an error, or with something else.
        """
        with self._errors(self._timeout):
            async with self._opened("POST", url, body) as response:
                content = await _read(response, LARGEST_ANSWER)
            _expect(response, JSON)
            return _object(content)

    async def stream(self, url: str, body: dict[str, Any]) -> AsyncGenerator[list[dict[str, Any]]]:
        """Yield the events that the server answers a body with; those that came together as one list.

        A server that does not stream yields one event. Close the iterator to end the call.

        Raises:
            ServerError: If it answers with an error, also after some events, or breaks off.
        """
        with self._errors(self._timeout):
            async with self._opened("POST", url, body) as response:
                if _kind(response) == JSON:
                    yield [_object(await _read(response, LARGEST_ANSWER))]
                    return
                _expect(response, EVENTS)
                reader = EventReader()
                pieces = response.aiter_stream()
                async for received in pieces:
                    events = reader.feed(received)
                    is_done = DONE in events
                    if is_done:
                        events = events[: events.index(DONE)]
                    if events:
                        yield [_object(event) for event in events]
                    if is_done:
                        await _drain(pieces)
                        return
                # Some forget the end of the last event, others the event that says that it was the last.
                last = reader.end()
                if last is not None and last != DONE:
                    yield [_object(last)]

    async def close(self) -> None:
        """Close all connections. Calls in flight fail."""
        self._is_closed = True
        await self._pool.aclose()

    @asynccontextmanager
    async def _opened(
        self, method: str, url: str, body: dict[str, Any] | None
    ) -> AsyncGenerator[httpcore.Response]:
        """Send a request and give the answer, whose content has not been read, if it is none of an error."""
        content = None if body is None else json.dumps(body).encode()
        headers = [*self._headers.items()]
        if content is not None:
            headers += [("content-type", JSON), ("content-length", str(len(content)))]
        response = await self._sent(method, url, headers, content)
        try:
            if not 200 <= response.status < 300:  # noqa: PLR2004 - HTTP's successes
                try:
                    said = await _read(response, LARGEST_ERROR, cut=True)
                except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
                    said = b""
                raise errors.of_status(response.status, said, _header(response, b"retry-after"))
            if _header(response, b"content-encoding") not in ("", "identity"):
                message = "the server compresses what it was asked not to"
                raise ServerError(grpc.StatusCode.INTERNAL, message)
            yield response
        finally:
            await response.aclose()

    async def _sent(
        self, method: str, url: str, headers: list[tuple[str, str]], content: bytes | None
    ) -> httpcore.Response:
        """Send a request and return the answer, whose content has not been read."""
        while True:
            is_new = False

            async def note(event: str, _told: dict[str, Any]) -> None:
                nonlocal is_new
                is_new = is_new or event.startswith("connection.connect")

            request = httpcore.Request(
                method,
                url,
                headers=headers,
                content=content,
                extensions={"timeout": self._timeouts, "trace": note},
            )
            began = time.monotonic()
            try:
                return await self._pool.handle_async_request(request)
            except (httpcore.ReadError, httpcore.WriteError, httpcore.RemoteProtocolError):
                # The server may close a kept connection just when it is used again; it has not seen the request then.
                if is_new or time.monotonic() - began > STALE_SECONDS:
                    raise
                logger.debug("a kept connection was closed; another one is tried")

    @contextmanager
    def _errors(self, seconds: float) -> Generator[None]:
        try:
            yield
        except ServerError as error:
            raise ServerError(
                error.code,
                errors.without(self._secrets, error.message),
                retry_seconds=error.retry_seconds,
                is_answer=error.is_answer,
            ) from None
        except (TimeoutError, httpcore.ReadTimeout) as error:
            raise self._unavailable(f"the server was silent for {seconds:g} s") from error
        except httpcore.ConnectTimeout as error:
            raise self._unavailable("the server cannot be reached in time") from error
        except (httpcore.ConnectError, httpcore.ProxyError) as error:
            message = f"the server cannot be reached: {_cause(error)}"
            raise self._unavailable(message) from error
        except EventTooLargeError as error:
            message = "the server sent an event that is too large"
            raise ServerError(grpc.StatusCode.INTERNAL, message) from error
        except (
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.TimeoutException,
        ) as error:
            # What was read until now is no whole answer.
            message = f"the server broke off the connection: {_cause(error)}"
            raise self._unavailable(message) from error

    def _unavailable(self, message: str) -> ServerError:
        if self._is_closed:
            message = "the model was freed"
        return ServerError(grpc.StatusCode.UNAVAILABLE, errors.without(self._secrets, message))


def _trust(registration: Registration, *, is_needed: bool) -> ssl.SSLContext:
    """Return which certificates are trusted. Reading those takes time that plain HTTP need not pay."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if is_needed:
        import certifi  # noqa: PLC0415 - few servers need it

        context.load_default_certs()
        context.load_verify_locations(cafile=certifi.where())
    if registration.ca_file:
        try:
            context.load_verify_locations(cafile=registration.ca_file)
        except (OSError, ssl.SSLError) as error:
            message = f"the certificates in {Path(registration.ca_file).name} cannot be used: {_cause(error)}"
            raise ServerError(grpc.StatusCode.INTERNAL, message) from error
    return context


def _proxy(url: str) -> httpcore.Proxy | None:
    if not url:
        return None
    parts = urlsplit(url)
    auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    port = f":{parts.port}" if parts.port else ""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return httpcore.Proxy(f"{parts.scheme}://{host}{port}", auth=auth)


def _split(url: str) -> tuple[str, str]:
    """Return the origin of a URL, and its path without a slash at the end."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}", quote(
        parts.path.rstrip("/"), safe="/%:@-._~!$&'()*+,;="
    )


async def _read(response: httpcore.Response, limit: int, *, cut: bool = False) -> bytes:
    """Read an answer, but no more than so many bytes; cut it there, or fail."""
    content = bytearray()
    async for received in response.aiter_stream():
        content += received
        if len(content) > limit:
            if cut:
                break
            message = "the server's answer is too large"
            raise ServerError(grpc.StatusCode.INTERNAL, message)
    return bytes(content[:limit])


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    """Read what follows the last event, so that the connection can be used again."""
    try:
        async with asyncio.timeout(REST_SECONDS):
            async for _ in pieces:
                pass
    except (TimeoutError, httpcore.NetworkError, httpcore.ProtocolError):
        logger.debug("a connection cannot be kept")


def _header(response: httpcore.Response, name: bytes) -> str:
    """Return a header, given in lower case; empty when there is none."""
    found = (value for key, value in response.headers if key.lower() == name)
    return next(found, b"").decode("latin-1").strip()


def _kind(response: httpcore.Response) -> str:
    return _header(response, b"content-type").partition(";")[0].strip().lower()


def _expect(response: httpcore.Response, kind: str) -> None:
    if _kind(response) != kind:
        said = errors.shortened(_kind(response)) or "no type"
        message = f"the server answered with {said} instead of {kind}"
        raise ServerError(grpc.StatusCode.INTERNAL, message)


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        message = "the server's answer is not JSON"
        raise ServerError(grpc.StatusCode.INTERNAL, message) from error


def _object(content: bytes) -> dict[str, Any]:
    value = _parsed(content)
    if not isinstance(value, dict):
        raise ServerError(grpc.StatusCode.INTERNAL, "the server's answer is not an object")
    if value.get("error"):
        raise errors.of_error(value["error"])
    return value


def _cause(error: Exception) -> str:
    """Say in a few words what went wrong with a connection."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, OSError) and cause.errno:
            # asyncio's own words name the address. Those of a name that is not found have no such number.
            return os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)
        cause = cause.__cause__ or cause.__context__
    return errors.shortened(str(error)) or type(error).__name__

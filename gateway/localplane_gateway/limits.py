"""How much of a request is read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.types import Receive

from localplane_gateway.errors import BodyTooLargeError, ClientGoneError

_DRAIN_SECONDS = 2.0


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """Read the body of a request.

    Raises:
        BodyTooLargeError: If it is over the limit: before anything is read where its length was
            announced, else as soon as that much has come.
        ClientGoneError: If the client went away before it had sent all.
    """
    announced = headers.get(b"content-length")
    if announced is None:
        if b"transfer-encoding" not in headers:
            return b""
    elif int(announced) > limit:
        raise BodyTooLargeError(limit)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise BodyTooLargeError(limit)
        return body
    chunks: list[bytes] = []
    size = 0
    while message["type"] == "http.request":
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise BodyTooLargeError(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)
        message = await receive()
    raise ClientGoneError


async def drain(receive: Receive) -> None:
    """Throw away what a client still sends, until it is done or has had its time."""
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while (message := await receive())["type"] == "http.request":
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return

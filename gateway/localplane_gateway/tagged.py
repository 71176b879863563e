"""Answers with a tag: written as JSON once, and kept for as long as the method gives the same tag.

The method is called each time, so that it decides who gets what and what is true now. It is told the
tag of what is kept here, and answers with an empty message while that is right: a large answer is
made, carried and written anew only when it is another one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from google.protobuf.message import Message

from localplane_gateway.errors import Headers
from localplane_gateway.exchange import JSON, Exchange

IF_NONE_MATCH = "x-http-if-none-match"
"""Metadata with the tags of what the caller has."""

MOST_KEPT = 64
MOST_KEPT_BYTES = 32 << 20
LARGE_BYTES = 64 << 10
"""Messages of which size are written on a thread, so that nobody else waits."""

_ETAG = b"etag"
# Whoever keeps an answer has to ask whether it is still right.
_REVALIDATED = (b"cache-control", b"private, no-cache")


class Written(NamedTuple):
    """An answer as JSON."""

    tag: bytes
    """Its tag, with the quotes."""
    body: bytes
    """The JSON."""


class WrittenAnswers:
    """Keeps answers of one method by what was asked, those that were used last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Written] = OrderedDict()
        self._bytes = 0
        self._pending: dict[tuple[bytes, bytes], asyncio.Future[bytes]] = {}

    def get(self, asked: bytes) -> Written | None:
        """Return the answer that was given last to this request."""
        kept = self._kept.get(asked)
        if kept is not None:
            self._kept.move_to_end(asked)
        return kept

    async def write(
        self, asked: bytes, tag: bytes, encode: Callable[[Message], bytes], response: Message
    ) -> Written:
        """Write an answer as JSON and keep it: once, however many ask at the same time."""
        if response.ByteSize() < LARGE_BYTES:
            body = encode(response)
        else:
            body = await self._written_aside(asked, tag, encode, response)
        written = Written(tag, body)
        self._put(asked, written)
        return written

    async def _written_aside(
        self, asked: bytes, tag: bytes, encode: Callable[[Message], bytes], response: Message
    ) -> bytes:
        key = (asked, tag)
        pending = self._pending.get(key)
        if pending is None:
            loop = asyncio.get_running_loop()
            pending = self._pending[key] = loop.run_in_executor(None, encode, response)
            pending.add_done_callback(lambda _: self._pending.pop(key))
        # One who leaves takes it away from nobody else.
        return await asyncio.shield(pending)

    def _put(self, asked: bytes, written: Written) -> None:
        before = self._kept.pop(asked, None)
        self._bytes -= len(before.body) if before else 0
        if len(written.body) > MOST_KEPT_BYTES:
            return
        self._kept[asked] = written
        self._bytes += len(written.body)
        while self._bytes > MOST_KEPT_BYTES or len(self._kept) > MOST_KEPT:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest.body)


def asked_with(request: Message) -> bytes:
    """Return what tells requests apart."""
    return request.SerializeToString(deterministic=True)


def tag_of(headers: Headers) -> bytes:
    """Return the tag of an answer; empty when it has none."""
    return next((value for name, value in headers if name == _ETAG), b"")


def has_it(exchange: Exchange, tag: bytes) -> bool:
    """Whether the client says that it has the answer with this tag."""
    given = exchange.headers.get(b"if-none-match")
    if given is None or not tag:
        return False
    tags = [one.strip().removeprefix(b"W/") for one in given.split(b",")]
    return tag in tags or tags == [b"*"]


async def answer(exchange: Exchange, written: Written, headers: Headers) -> None:
    """Answer a request, with nothing but the tag when the client has the rest."""
    headers = [_REVALIDATED, *headers]
    if has_it(exchange, written.tag):
        await exchange.respond_empty(304, headers=headers)
    else:
        await exchange.respond(200, written.body, JSON, headers=headers)

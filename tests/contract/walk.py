"""Sends input that nobody should send, and collects what the answers break."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import grpc
import httpx
from google.protobuf.message import Message

from contract.error_table import check_call_error, check_response
from contract.surface import ENDLESS, METHODS
from contract.transports import CallError, GrpcTransport, _error

LONGEST_SECONDS = 20.0
"""The bound of one call. Most take milliseconds; but a machine may be busy, and some calls load a model."""


class Walk:
    """Calls one method, and holds every answer against the table and the bound."""

    def __init__(self, method: str) -> None:
        self._method = method
        self.broken: list[str] = []
        """What was wrong with answers. Empty is what a test wants."""
        self.reasons: set[str] = set()
        """Reasons of the answers, `OK` for good ones, and an empty one for what the gRPC library says itself."""
        self.count = 0
        """Calls."""

    async def message(self, label: str, transport: GrpcTransport, request: Message) -> None:
        """Send a message."""
        await self._send(label, self._message(transport, request))

    async def wire(self, label: str, channel: Any, request: bytes) -> None:
        """Send bytes in place of a message."""
        await self._send(label, self._wire(channel, request))

    async def rest(
        self, label: str, client: httpx.AsyncClient, verb: str, url: str, **sent: Any
    ) -> None:
        """Send a request of HTTP."""
        await self._send(label, self._rest(client, verb, url, sent))

    def finish(self) -> None:
        """Fail when an answer broke something."""
        assert self.count
        assert not self.broken, f"{len(self.broken)} of {self.count}:\n" + "\n".join(self.broken)

    async def _send(self, label: str, call: Any) -> None:
        self.count += 1
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                self.reasons.add(await call)
        except (AssertionError, TimeoutError, httpx.HTTPError, ValueError) as error:
            self.broken.append(f"{label}: {type(error).__name__} {error}"[:500])

    async def _message(self, transport: GrpcTransport, request: Message) -> str:
        try:
            if METHODS[self._method].server_streaming:
                async with aclosing(transport.stream(self._method, request)) as answers:
                    async for _ in answers:
                        if self._method in ENDLESS:
                            break
            else:
                await transport.call(self._method, request)
        except CallError as error:
            check_call_error(error)
            return error.reason
        return "OK"

    async def _wire(self, channel: Any, request: bytes) -> str:
        method = METHODS[self._method]
        path = f"/{method.containing_service.full_name}/{method.name}"
        try:
            if method.server_streaming:
                call = channel.unary_stream(path)(request)
                async for _ in call:
                    if self._method in ENDLESS:
                        call.cancel()
                        break
            else:
                await channel.unary_unary(path)(request)
        except grpc.aio.AioRpcError as raised:
            error = _error(raised)
            check_call_error(error)
            return error.reason
        return "OK"

    async def _rest(
        self, client: httpx.AsyncClient, verb: str, url: str, sent: dict[str, Any]
    ) -> str:
        if self._method in ENDLESS:
            response = await _begun(client, verb, url, sent)
        else:
            response = await client.request(verb, url, **sent)
        check_response(response, self._method)
        if response.status_code < httpx.codes.BAD_REQUEST or verb == "HEAD":
            return "OK"
        reason: str = response.json()["error"]["reason"]
        return reason


async def _begun(
    client: httpx.AsyncClient, verb: str, url: str, sent: dict[str, Any]
) -> httpx.Response:
    """Return an answer with as much of its content as comes at once where it has no end."""
    async with client.stream(verb, url, **sent) as response:
        if response.is_success and verb != "HEAD":
            response._content = await anext(response.aiter_bytes(), b"")
        else:
            await response.aread()
    return response

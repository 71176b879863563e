"""The check of the token that a backend is given by whoever starts it."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc

BEARER = "bearer "


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Refuses every call without the right token: loopback is open to every user of the machine."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Hand the call on if its token is right."""
        problem = self._problem(handler_call_details)
        if problem is None:
            return await continuation(handler_call_details)

        async def refuse(_request: Any, context: Any) -> NoReturn:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, problem)
            raise AssertionError  # abort() raises

        return grpc.unary_unary_rpc_method_handler(refuse)

    def _problem(self, details: grpc.HandlerCallDetails) -> str | None:
        # The four texts are LocalAI's.
        metadata = details.invocation_metadata
        if not metadata:
            return "missing metadata"
        header = next((value for key, value in metadata if key == "authorization"), None)
        if not header:
            return "missing authorization header"
        given = header if isinstance(header, bytes) else header.encode()
        if not given.lower().startswith(BEARER.encode()):
            return "authorization must use Bearer scheme"
        if not hmac.compare_digest(given[len(BEARER) :], self._token):
            return "invalid token"
        return None

"""What the gateway asks of a channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Channel(Protocol):
    """The part of `grpc.aio.Channel` that the gateway uses.

    Both methods give what starts calls: it takes a request and the keyword argument `metadata`, and
    gives a call of the shape that `grpc.aio` has. A unary call is awaited; messages of a stream are
    fetched by `read()`.
    """

    def unary_unary(
        self, method: str, /, *, request_serializer: Any, response_deserializer: Any
    ) -> Callable[..., Any]:
        """Get what calls a unary method."""

    def unary_stream(
        self, method: str, /, *, request_serializer: Any, response_deserializer: Any
    ) -> Callable[..., Any]:
        """Get what calls a method that answers with a stream."""

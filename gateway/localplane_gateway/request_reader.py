"""The request of a method, put together from body, path and query."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from localplane_gateway.bindings import Binding
from localplane_gateway.codec import CodecError, codec_for
from localplane_gateway.errors import InvalidRequestError
from localplane_gateway.exchange import Exchange
from localplane_gateway.query import read_query


class RequestReader:
    """Reads the requests of one operation."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._decode = codec_for(binding.call.request_class).decode_object
        # Under which other name the body may hold a field.
        self._other_names = {
            name: field.name if name != field.name else "" for name, field in binding.query.items()
        }

    def values(self, exchange: Exchange) -> dict[str, Any]:
        """Join what a request gives: a field of the body wins, then the path, then the query.

        Raises:
            InvalidRequestError: If the query cannot be read.
        """
        values = exchange.body
        for name, value in exchange.path_values.items():
            self._fill(values, name, value)
        if query := exchange.scope["query_string"]:
            binding = self._binding
            for name, value in read_query(query, binding.query, binding.reasons).items():
                self._fill(values, name, value)
        return values

    def read(self, values: dict[str, Any]) -> Message:
        """Make the method's request.

        Raises:
            InvalidRequestError: If a field is missing or wrong.
        """
        for name in self._binding.required:
            if values.get(name) is None and values.get(self._other_names[name]) is None:
                # LocalAI's words.
                kind = "query parameter " if self._binding.verb == "get" else ""
                message = f"{name} {kind}is required"
                raise InvalidRequestError(message, field=name, reason=self._reason(name))
        try:
            request: Message = self._decode(values)
        except CodecError as error:
            raise InvalidRequestError(
                error.message, field=error.field, reason=error.reason
            ) from error
        except RecursionError:
            message = "cannot read the body: it is nested too deeply"
            raise InvalidRequestError(message) from None
        return request

    def _fill(self, values: dict[str, Any], name: str, value: object) -> None:
        other = self._other_names[name]
        if values.get(name) is None and values.get(other) is None:
            values.pop(other, None)
            values[name] = value

    def _reason(self, name: str) -> str:
        return self._binding.reasons.get(name, "")

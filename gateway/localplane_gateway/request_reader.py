"""The request of a method, put together from body, path and query."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from localplane_gateway.bindings import Binding, json_name
from localplane_gateway.codec import CodecError, codec_for
from localplane_gateway.errors import InvalidRequestError
from localplane_gateway.exchange import Exchange
from localplane_gateway.query import read_query

MOST_VALUES = 200_000
"""Values that a field may hold whose JSON has no form of its own, such as tools with their schemas. Each
of them takes the event loop a microsecond or two, and meanwhile nobody else is served."""

_LOOSE = frozenset({"google.protobuf.ListValue", "google.protobuf.Struct", "google.protobuf.Value"})


class RequestReader:
    """Reads the requests of one operation."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._decode = codec_for(binding.call.request_class).decode_object
        descriptor: Any = binding.call.request_class.DESCRIPTOR  # its type has another name
        self._loose = [
            json_name(field) for field in descriptor.fields if _is_loose(field.message_type, set())
        ]
        # Under which other name the body may hold a field.
        self._other_names = {
            name: field.name if name != field.name else "" for name, field in binding.query.items()
        }

    def values(self, exchange: Exchange) -> dict[str, Any]:
        """Join what a request gives: a field of the body wins over the query; the path has no other beside it.

        Raises:
            InvalidRequestError: If the query cannot be read, or body and path mean different things: what a path names
                may be about to be deleted.
        """
        values = exchange.body
        for name, value in exchange.path_values.items():
            self._fill(values, name, value)
            told = values.get(name, values.get(self._other_names[name]))
            if told != value:
                message = f"cannot tell which {name} is meant: path and body name different ones"
                raise InvalidRequestError(message, field=name)
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
        for name in self._loose:
            if _holds_more(values.get(name), MOST_VALUES):
                message = f"cannot read {name}: it holds more than {MOST_VALUES} values"
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


def _is_loose(message_type: Any, seen: set[str]) -> bool:
    """Whether a message holds, however deep, JSON of any form."""
    if message_type is None or message_type.full_name in seen:
        return False
    seen.add(message_type.full_name)
    return message_type.full_name in _LOOSE or any(
        _is_loose(field.message_type, seen) for field in message_type.fields
    )


def _holds_more(value: Any, limit: int) -> bool:
    """Whether JSON holds more values than that. Looks at no more of it than it takes to know."""
    open_values = [value]
    count = 0
    while open_values:
        item = open_values.pop()
        if type(item) is dict:
            item = item.values()
        elif type(item) is not list:
            continue
        count += len(item)
        if count > limit:
            return True
        open_values.extend(one for one in item if type(one) is dict or type(one) is list)
    return False

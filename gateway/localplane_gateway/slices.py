"""Long lists and maps, written a slice at a time so that nobody else waits for the whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from google.protobuf.message import Message

from localplane_gateway.codec import codec_for

SLICE = 16
"""Messages that are written at once: a millisecond's work, if they are of some size."""


class SlicedField:
    """Writes one field of a message, whose elements are messages, as `Codec.encode_field` does."""

    def __init__(self, message_class: type[Message], name: str) -> None:
        self._class: Any = message_class
        self._name = name
        self._codec = codec_for(message_class)
        self._is_map = _is_map(message_class.DESCRIPTOR.fields_by_name[name])

    @classmethod
    def of(cls, message_class: type[Message], name: str) -> SlicedField | None:
        """Return what writes a field in slices, or None where it is no list or map of messages."""
        field = message_class.DESCRIPTOR.fields_by_name.get(name)
        if field is None or not field.is_repeated or field.message_type is None:
            return None
        if _is_map(field) and field.message_type.fields_by_name["value"].message_type is None:
            return None
        return cls(message_class, name)

    async def encode(self, message: Any) -> bytes:
        """Write the field as JSON text, and let others have their turn in between.

        Raises:
            CodecError: If JSON cannot express the value.
        """
        elements = getattr(message, self._name)
        if len(elements) <= SLICE:
            return self._codec.encode_field(message, self._name)
        pieces = []
        for part in self._parts(elements):
            written = self._codec.encode_field(self._class(**{self._name: part}), self._name)
            pieces.append(written[1:-1])
            await asyncio.sleep(0)
        first, last = (b"{", b"}") if self._is_map else (b"[", b"]")
        return first + b",".join(pieces) + last

    def _parts(self, elements: Any) -> Iterator[Any]:
        if self._is_map:
            for entries in _slices(elements.items()):
                yield dict(entries)
        else:
            yield from _slices(elements)


def _slices(elements: Iterable[Any]) -> Iterator[list[Any]]:
    left = iter(elements)
    while part := list(islice(left, SLICE)):
        yield part


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry is True

"""How the messages of a stream are written: as server-sent events, or a line of JSON each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from localplane.v1 import options_pb2

_EVENTS = b"text/event-stream"
_NDJSON = b"application/x-ndjson"
_TEXT = b"text/plain"


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """A way to write messages one after the other."""

    content_type: bytes
    """Media type of the answer."""
    before: bytes
    """What stands before a message."""
    after: bytes
    """What stands after it."""
    done: bytes
    """What tells the end of a stream whose clients wait to be told."""
    heartbeat: bytes
    """What says nothing but that the stream goes on: an event without fields, or an empty line."""
    has_ids: bool
    """Whether a message can be told by its place in the stream."""

    def frame(self, message: bytes, event_id: bytes = b"") -> bytes:
        """Write one message, which is JSON without line breaks.

        Args:
            message: The message.
            event_id: Its place in the stream, in one line. Empty when it has none.
        """
        if event_id and self.has_ids:
            return b"id: " + event_id + b"\n" + self.before + message + self.after
        return self.before + message + self.after


SSE = StreamFormat(
    _EVENTS, b"data: ", b"\n\n", b"data: [DONE]\n\n", heartbeat=b":\n\n", has_ids=True
)
NDJSON = StreamFormat(_NDJSON, b"", b"\n", b"", heartbeat=b"\n", has_ids=False)
# An empty line would be a line of somebody's text.
PLAIN = StreamFormat(b"text/plain; charset=utf-8", b"", b"\n", b"", heartbeat=b"", has_ids=False)

# An answer that is not finished must not be kept, by a cache or by a proxy that waits for its end.
STREAM_HEADERS = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


def choose_format(accept: bytes, *, has_text: bool = False) -> StreamFormat:
    """Choose by what the client accepts.

    Args:
        accept: Its header `Accept`.
        has_text: Whether the messages have a text of their own, which those who accept nothing else get alone.
    """
    accepted = accept.lower()
    if _NDJSON in accepted:
        return NDJSON
    return PLAIN if has_text and _TEXT in accepted and _EVENTS not in accepted else SSE


def event_id_reader(message_class: Any) -> Callable[[Any], bytes] | None:
    """Return what reads the place of a message in its stream, or None where messages have none."""
    for field in message_class.DESCRIPTOR.fields:
        if field.GetOptions().Extensions[options_pb2.event_id]:
            name = field.name
            return lambda message: _in_one_line(getattr(message, name))
    return None


def plain_line_reader(message_class: Any) -> Callable[[Any], bytes | None] | None:
    """Return what reads the text of a message, which may have none, or None where messages are more than a text."""
    for field in message_class.DESCRIPTOR.fields:
        if field.GetOptions().Extensions[options_pb2.plain_line]:
            name = field.name
            return lambda message: (
                getattr(message, name).encode() if message.HasField(name) else None
            )
    return None


def _in_one_line(value: str | int) -> bytes:
    text = str(value) if value else ""
    # Whatever stood behind a line break would be a field of its own.
    return text.encode() if text.isprintable() else b""

"""How the messages of a stream are written: as server-sent events, or a line of JSON each."""

from __future__ import annotations

from dataclasses import dataclass

_NDJSON = b"application/x-ndjson"


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

    def frame(self, message: bytes) -> bytes:
        """Write one message, which is JSON without line breaks."""
        return self.before + message + self.after


SSE = StreamFormat(b"text/event-stream", b"data: ", b"\n\n", b"data: [DONE]\n\n")
NDJSON = StreamFormat(_NDJSON, b"", b"\n", b"")

# An answer that is not finished must not be kept, by a cache or by a proxy that waits for its end.
STREAM_HEADERS = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


def choose_format(accept: bytes) -> StreamFormat:
    """Choose by what the client accepts."""
    return NDJSON if _NDJSON in accept.lower() else SSE

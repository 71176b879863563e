"""What the gateway tells of the HTTP request behind a call.

It comes as metadata, which any caller can send, so it may only choose between answers that the caller could have
anyhow.
"""

from __future__ import annotations

from typing import Any

ACCEPT = "x-http-accept"
"""The header `Accept`."""
BASE_URL = "x-http-base-url"
"""Address under which the caller reached REST."""
LAST_EVENT_ID = "x-http-last-event-id"
"""The header `Last-Event-ID`: how far a client of events had come."""

IDEMPOTENCY_KEY = "x-http-idempotency-key"
"""The header `Idempotency-Key`: the caller's identifier of the request."""
IF_NONE_MATCH = "x-http-if-none-match"
"""The tags of answers that the caller has, as in the header `If-None-Match`."""
HEADER = "x-http-header-"
"""Begins the names of initial metadata that become headers of the answer."""


def http_fact(context: Any, name: str) -> str:
    """Return one of the facts above, or an empty text when the call did not come that way."""
    return next(
        (str(value) for key, value in context.invocation_metadata() or () if key == name), ""
    )

"""What the server's refusals and failures are on our side."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import grpc

Code = grpc.StatusCode

CODES: Mapping[int, grpc.StatusCode] = {
    400: Code.INVALID_ARGUMENT,
    404: Code.NOT_FOUND,
    405: Code.UNIMPLEMENTED,
    408: Code.UNAVAILABLE,
    413: Code.INVALID_ARGUMENT,
    422: Code.INVALID_ARGUMENT,
    425: Code.UNAVAILABLE,
    429: Code.RESOURCE_EXHAUSTED,
    501: Code.UNIMPLEMENTED,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.UNAVAILABLE,
    529: Code.UNAVAILABLE,
}
"""The codes of HTTP's statuses. All others are failures, those of the key included: it is ours and not the caller's."""
DEFAULT_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 3600.0
LONGEST_TEXT = 600
"""Characters of what the server says that a message carries."""
HIDDEN = "***"


class ServerError(Exception):
    """The server refused, failed, or cannot be reached."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        retry_seconds: float | None = None,
        is_answer: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        """What kind of error it is."""
        self.message = message
        """What is wrong; has no secrets."""
        if retry_seconds is None and code in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED):
            retry_seconds = DEFAULT_RETRY_SECONDS
        self.retry_seconds = retry_seconds
        """When to try again. None when that does not help."""
        self.is_answer = is_answer
        """Whether it is what the server answered, and not that it did not."""


def of_status(status: int, body: bytes, retry_after: str = "") -> ServerError:
    """Return the error that an answer stands for.

    Args:
        status: HTTP's.
        body: What the server says, or the beginning of it.
        retry_after: The header of that name. Empty when there is none.
    """
    code = CODES.get(status, Code.INTERNAL)
    said = _message(body)
    if 300 <= status < 400:  # noqa: PLR2004 - HTTP's redirects
        # Following it could carry the key, and the prompt, to somebody else.
        message = "the server sends callers to another address, which is not followed"
    elif status in (401, 403):
        message = f"the server does not accept the key: {said or status}"
    else:
        message = said or f"the server answered with status {status}"
    seconds = _seconds(retry_after) if retry_after else None
    return ServerError(code, message, retry_seconds=seconds, is_answer=True)


def of_error(error: Any) -> ServerError:
    """Return what an error in the middle of a stream stands for, in one of the shapes of servers."""
    status = error.get("code") if isinstance(error, dict) else None
    if not isinstance(status, int) or isinstance(status, bool):
        status = 500
    return of_status(status, json.dumps({"error": error}).encode())


def shortened(text: str) -> str:
    """Return a text of the server as one line that is not too long."""
    line = " ".join(text.split())
    line = "".join(char if char.isprintable() else "?" for char in line)
    return line if len(line) <= LONGEST_TEXT else f"{line[:LONGEST_TEXT]}..."


def without(secrets: tuple[str, ...], text: str) -> str:
    """Return a text in which no secret can be read."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def _message(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    try:
        said = json.loads(text)
    except ValueError:
        # Pages for people tell nothing in one line.
        return "" if text.lstrip().startswith("<") else shortened(text)
    if isinstance(said, dict):
        error = said.get("error", said)
        if isinstance(error, dict):
            error = error.get("message") or error.get("detail") or error
        said = error
    return shortened(said if isinstance(said, str) else json.dumps(said))


def _seconds(text: str) -> float | None:
    """Read the header `Retry-After`: seconds, or a date."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            when = parsedate_to_datetime(text)
        except ValueError:
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        seconds = (when - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_SECONDS) if math.isfinite(seconds) else None

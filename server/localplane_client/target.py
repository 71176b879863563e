"""Where a service is, and the key it is asked with."""

from __future__ import annotations

import re
from collections.abc import Mapping

DEFAULT_TARGET = "127.0.0.1:50051"
"""Where a service listens that nobody told otherwise."""

_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):(\d{1,5})")
_HIGHEST_PORT = 65535


class InvalidTargetError(ValueError):
    """A text names no place where a service could be."""

    def __init__(self, target: str) -> None:
        super().__init__(f"cannot call {target!r}: expected HOST:PORT or unix:PATH")


def checked_target(target: str) -> str:
    """Return the target as it is.

    Args:
        target: `HOST:PORT`, `[V6]:PORT` or `unix:PATH`.

    Raises:
        InvalidTargetError: If it is none of these.
    """
    found = _HOST_AND_PORT.fullmatch(target)
    if found and 0 < int(found[2]) <= _HIGHEST_PORT:
        return target
    if target.startswith("unix:") and target != "unix:":
        return target
    raise InvalidTargetError(target)


def target_from(environment: Mapping[str, str]) -> str:
    """Return what `LOCALPLANE_GRPC` says, else the default."""
    return environment.get("LOCALPLANE_GRPC") or DEFAULT_TARGET


def api_key_from(environment: Mapping[str, str]) -> str | None:
    """Return what `LOCALPLANE_API_KEY` says. The service reads a list of keys there; a client uses the first."""
    return environment.get("LOCALPLANE_API_KEY", "").partition(",")[0].strip() or None

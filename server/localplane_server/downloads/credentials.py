"""Keys for hosts: each is sent to the one place that it was given for."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from localplane_server.downloads.addresses import default_port


@dataclass(frozen=True, slots=True)
class Credentials:
    """Values of the `Authorization` header by origin: scheme, host and port."""

    by_origin: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The values."""

    def bound(self, url: str, value: str) -> Credentials:
        """Return credentials that have a value for the origin of a URL, too."""
        return Credentials({**self.by_origin, origin(url): value})

    def authorization(self, url: str) -> str | None:
        """Return what to send with a request for a URL. None when that is nothing."""
        return self.by_origin.get(origin(url))


def bearer(token: str) -> str:
    """Return the header's value for a token."""
    return f"Bearer {token}"


def basic(user: str, password: str) -> str:
    """Return the header's value for a user's name and password."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def origin(url: str) -> str:
    """Return scheme, host and port of a URL, all of them written out."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or default_port(parts.scheme)}"

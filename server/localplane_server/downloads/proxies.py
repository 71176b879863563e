"""Proxies that the environment names, for machines that reach the Internet through one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import httpcore

from localplane_server.downloads.addresses import default_port
from localplane_server.downloads.patience import TransferError


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """Which proxy is for which URL."""

    by_scheme: Mapping[str, str] = field(default_factory=dict, repr=False)
    """URL of the proxy by the scheme of what is asked for."""
    without: tuple[str, ...] = ()
    """Hosts that are asked directly: names, with all names below them; `*` for every host."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Proxies:
        """Read `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in either case."""

        def value(name: str) -> str:
            return (environment.get(name.lower()) or environment.get(name) or "").strip()

        found = {scheme: value(f"{scheme.upper()}_PROXY") for scheme in ("https", "http")}
        every = value("ALL_PROXY")
        return cls(
            by_scheme={scheme: url or every for scheme, url in found.items() if url or every},
            without=tuple(filter(None, map(_host, value("NO_PROXY").split(",")))),
        )

    def of(self, url: str) -> str:
        """Return the proxy for a URL. Empty for none."""
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        named = {host, f"{host}:{parts.port or default_port(parts.scheme)}"}
        for one in self.without:
            if one == "*" or one in named or host.endswith(f".{one}"):
                return ""
        return self.by_scheme.get(parts.scheme, "")


def opened(proxy: str) -> httpcore.Proxy:
    """Return a proxy as the HTTP library wants it.

    Raises:
        TransferError: If it is of a kind that is not supported.
    """
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        host, port = parts.hostname or "", parts.port or default_port(parts.scheme)
    except ValueError:
        raise TransferError("the proxy's URL is none", is_lasting=True) from None
    if parts.scheme not in ("http", "https") or not host:
        cause = f"a proxy of the kind {parts.scheme} cannot be used, one of HTTP can"
        raise TransferError(cause, is_lasting=True)
    auth = None
    if parts.username is not None:
        auth = (unquote(parts.username).encode(), unquote(parts.password or "").encode())
    shown = f"[{host}]" if ":" in host else host
    return httpcore.Proxy(f"{parts.scheme}://{shown}:{port}", auth=auth)


def _host(written: str) -> str:
    return written.strip().lower().removeprefix("*.").lstrip(".")

"""Which hosts and pages may use the service through a browser.

A web page that a user merely looks at can make the user's browser call services on the user's
machine. Two rules stop it: a request must name a host that this service is known by, which a page
that had its own name resolved to this machine cannot do; and a page of another site gets nothing
but public reads.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from localplane_gateway.errors import CrossSiteError, Headers, MisdirectedRequestError
from localplane_gateway.exchange import Exchange
from localplane_gateway.settings import GatewaySettings

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_PREFLIGHT_HEADERS = (
    b"authorization, content-type, x-api-key, xi-api-key, x-request-id, last-event-id"
)
_EXPOSED_HEADERS = b"content-disposition, link, retry-after, x-next-page-token, x-request-id"


class HostRule:
    """Refuses requests for hosts that this service is not known by."""

    def __init__(self, settings: GatewaySettings) -> None:
        names = {host.lower().rstrip(".") for host in settings.allowed_hosts}
        if settings.public_url:
            names.add(urlsplit(settings.public_url).hostname or "")
        self._names = _LOOPBACK | names

    def check(self, exchange: Exchange) -> None:
        """Check the host that a request names.

        Raises:
            MisdirectedRequestError: If it is neither allowed nor the address that was reached.
        """
        header = exchange.headers.get(b"host")
        if header is None:  # no browser leaves it out
            return
        text = header.decode("latin-1")
        name = _without_port(text.lower())
        if name in self._names:
            return
        server = exchange.scope.get("server")
        if server is None or name != server[0].lower().removeprefix("::ffff:"):
            raise MisdirectedRequestError(text)


class BrowserRule:
    """Refuses requests from pages of other sites, and says which pages may read answers."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._allowed = frozenset(origin.lower() for origin in settings.allowed_origins)
        self._public = _origin_of(settings.public_url) if settings.public_url else None

    @property
    def allows_others(self) -> bool:
        """Whether there are pages elsewhere that may read answers."""
        return bool(self._allowed)

    def check(self, exchange: Exchange, *, is_public: bool) -> None:
        """Check where a request comes from.

        Args:
            exchange: The request.
            is_public: Whether everybody may call the operation.

        Raises:
            CrossSiteError: If it comes from a page of another site and is more than a public read.
        """
        headers = exchange.headers
        origin = headers.get(b"origin")
        if origin is None:
            is_foreign = headers.get(b"sec-fetch-site") == b"cross-site"
        else:
            is_foreign = not self._is_known(origin.decode("latin-1").lower(), exchange)
        if is_foreign and not (is_public and exchange.method in _READS):
            raise CrossSiteError

    def answer_headers(self, exchange: Exchange) -> Headers:
        """Get the headers that let a page of an allowed origin read the answer."""
        origin = exchange.headers.get(b"origin", b"")
        if origin.decode("latin-1").lower() not in self._allowed:
            return [(b"vary", b"Origin")]
        return [
            (b"vary", b"Origin"),
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _EXPOSED_HEADERS),
        ]

    def preflight_headers(self, exchange: Exchange, allow: bytes) -> Headers:
        """Get the headers that tell a browser what a page of an allowed origin may send."""
        origin = exchange.headers.get(b"origin", b"").decode("latin-1").lower()
        if origin not in self._allowed:
            return []
        return [
            (b"access-control-allow-methods", allow),
            (b"access-control-allow-headers", _PREFLIGHT_HEADERS),
            (b"access-control-max-age", b"600"),
        ]

    def _is_known(self, origin: str, exchange: Exchange) -> bool:
        if origin in self._allowed or origin == self._public:
            return True
        # The scheme is not compared: where a proxy speaks TLS, the service sees plain HTTP.
        host = exchange.headers.get(b"host", b"").decode("latin-1").lower()
        scheme, separator, authority = origin.partition("://")
        return bool(separator) and scheme in ("http", "https") and authority == host


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def _origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()

"""Which hosts and addresses downloads may reach: public ones, and those that the operator names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import SplitResult, urlsplit

from localplane_server.errors import SourceRefusedError

_Address = IPv4Address | IPv6Address

# Written out, since what Python calls global differs between its versions.
_FORBIDDEN = [
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by customers of a carrier; a cloud keeps its metadata there
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's host agent, at an address that looks public
        "169.254.0.0/16",  # link-local, where most clouds keep their metadata
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; another cloud's metadata
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",
        "3fff::/20",
    )
]
_PUBLIC_V6 = IPv6Network("2000::/3")
_TRANSLATED = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_SCHEMES = ("https", "http")
_NAME = re.compile(rb"[A-Za-z0-9._-]+")


def is_public(address: str) -> bool:
    """Whether an address belongs to the public Internet, and so do all that it wraps."""
    return _is_public(ip_address(address.partition("%")[0]))


def _is_public(address: _Address) -> bool:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return _is_public(address.ipv4_mapped)
        if address in _TRANSLATED:
            return _is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address in _SIX_TO_FOUR:
            return _is_public(IPv4Address((int(address) >> 80) & 0xFFFFFFFF))
        if address not in _PUBLIC_V6:
            return False
    return not any(
        address in network for network in _FORBIDDEN if network.version == address.version
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPolicy:
    """What downloads may reach."""

    private_hosts: frozenset[str] = frozenset()
    """Hosts that may have any address and be spoken to without TLS: `name` for every port of it,
    or `name:port`. Lower case; addresses of version 6 in brackets."""
    allow_http: bool = False
    """Whether every host may be spoken to without TLS."""

    @classmethod
    def of(cls, private_hosts: Iterable[str] = (), *, allow_http: bool = False) -> AddressPolicy:
        """Make a policy of hosts as people write them."""
        return cls(private_hosts=frozenset(map(_written, private_hosts)), allow_http=allow_http)

    def also(self, hosts: Iterable[str]) -> AddressPolicy:
        """Return a policy that lets these hosts have any address, too."""
        return AddressPolicy(
            private_hosts=self.private_hosts | frozenset(map(_written, hosts)),
            allow_http=self.allow_http,
        )

    def names(self, host: str, port: int) -> bool:
        """Whether the operator named this host."""
        written = _written(host)
        return written in self.private_hosts or f"{written}:{port}" in self.private_hosts

    def check_url(self, url: str) -> SplitResult:
        """Refuse a URL by its looks, before any name in it is resolved; return its parts.

        Raises:
            SourceRefusedError: If it has another scheme than HTTP's, credentials, or no host; if
                it needs TLS and has none; or if its host is an address that may not be reached.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise SourceRefusedError(shown(url), "it is no URL") from None
        if parts.scheme not in _SCHEMES:
            raise SourceRefusedError(
                shown(url), f"{parts.scheme or 'no'} scheme is not for downloads"
            )
        if not host or not url.isprintable() or any(map(str.isspace, parts.netloc)):
            raise SourceRefusedError(shown(url), "it is no URL")
        if not _is_name(host):
            raise SourceRefusedError(shown(url), "its host is none")
        if parts.username is not None:
            raise SourceRefusedError(shown(url), "it has a user's name in it")
        port = port or default_port(parts.scheme)
        is_named = self.names(host, port)
        if parts.scheme == "http" and not (self.allow_http or is_named):
            raise SourceRefusedError(shown(url), "it has no TLS, and --allow-http is not set")
        if not is_named and _is_literal(host) and not is_public(host):
            raise _refused(host, host)
        return parts

    def reachable(self, host: str, port: int, addresses: Iterable[str]) -> list[str]:
        """Return those of a host's addresses that may be connected to.

        Raises:
            SourceRefusedError: If there is none.
        """
        found = list(addresses)
        if self.names(host, port):
            return found
        allowed = [address for address in found if is_public(address)]
        if not allowed:
            raise _refused(host, found[0] if found else "no address")
        return allowed


def default_port(scheme: str) -> int:
    """Return the port that a scheme has when a URL names none."""
    return 443 if scheme == "https" else 80


def shown(url: str) -> str:
    """Return a URL as it may be repeated: queries can hold keys, and so can a user's name."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "the URL"
    return parts._replace(netloc=host, query="", fragment="").geturl()


def _written(host: str) -> str:
    """Write a host in one way: lower case, and addresses of version 6 in brackets."""
    lowered = host.strip().lower().rstrip(".")
    if ":" in lowered and _is_literal(lowered):
        return f"[{lowered}]"
    return lowered


def _is_literal(host: str) -> bool:
    try:
        # Only addresses of version 6 have zones.
        ip_address(host.partition("%")[0] if ":" in host else host)
    except ValueError:
        return False
    return True


def _is_name(host: str) -> bool:
    """Whether a host can be looked up: no part of its name is empty, too long, or quoted.

    Who reads a quoted name as another one, as a proxy may, would be led past all that is looked at here.
    """
    if _is_literal(host):
        return True
    try:
        return _NAME.fullmatch(host.encode("idna")) is not None
    except UnicodeError:
        return False


def _refused(host: str, address: str) -> SourceRefusedError:
    cause = (
        f"it leads to {address}, which is not on the public Internet;"
        " --allow-private-hosts can name the host"
    )
    return SourceRefusedError(host, cause)

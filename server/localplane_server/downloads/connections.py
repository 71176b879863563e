"""Connections of downloads: each goes to an address that was looked at after the name was resolved."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import certifi
import httpcore

from localplane_server.downloads.addresses import AddressPolicy

READ_BYTES = 256 * 1024
"""How much is read at once. The library asks for less, which costs it more than the network does."""

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Finds the addresses of a host."""


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host, in the order in which the system wants them tried.

    Raises:
        OSError: If there is none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def trusted(*files: str) -> ssl.SSLContext:
    """Return who is trusted: whom the system trusts, or else a common list; and more certificates."""
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"] and not ssl.get_default_verify_paths().capath:
        context.load_verify_locations(cafile=certifi.where())
    for file in files:
        context.load_verify_locations(cafile=file)
    return context


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Makes connections for the HTTP library, to addresses that the policy lets it reach.

    The library gives the name; what is connected to is the very address that was looked at, so a
    name that means something else a moment later gains nothing. Names of certificates and of hosts
    in requests stay those of the URL.
    """

    def __init__(self, policy: AddressPolicy, find: Resolve = resolve) -> None:
        self._policy = policy
        self._resolve = find
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of a host that answers.

        Raises:
            SourceRefusedError: If none of its addresses may be reached.
        """
        try:
            async with asyncio.timeout(timeout):
                found = await self._resolve(host, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"the name {host} was not resolved in time") from error
        except OSError as error:
            raise httpcore.ConnectError(f"the name {host} cannot be resolved") from error
        *others, last = self._policy.reachable(host, port, found)
        for address in others:
            try:
                return await self._connect(address, port, timeout)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._connect(last, port, timeout)

    async def _connect(
        self,
        address: str,
        port: int,
        timeout: float | None,  # noqa: ASYNC109 - passed on
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._backend.connect_tcp(address, port, timeout=timeout))

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: no URL leads to such a socket."""
        raise httpcore.UnsupportedProtocol(path)

    async def sleep(self, seconds: float) -> None:
        """Wait, as the library does before it tries again."""
        await asyncio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """A stream that is read in larger pieces than the library asks for."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        return await self._stream.read(max(max_bytes, READ_BYTES), timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

"""Addresses to listen on: bound before anything is built, and named with their holder when taken."""

from __future__ import annotations

import errno
import socket

import psutil

from localplane_server.errors import AddressTakenError, StartupError
from localplane_server.setting_values import Endpoint


def bound_socket(endpoint: Endpoint) -> socket.socket:
    """Return a socket that is bound to the address and listens nowhere yet.

    Raises:
        AddressTakenError: If somebody else has the address.
        StartupError: If it cannot be bound for another reason.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise StartupError(f"cannot listen on {endpoint}: {error}") from error
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressTakenError(str(endpoint), _holder(endpoint.port)) from error
        raise StartupError(f"cannot listen on {endpoint}: {error.strerror}") from error
    return bound


def check_free(endpoint: Endpoint) -> None:
    """Return if nobody has the address.

    For servers that bind by themselves and do not say who is in the way.

    Raises:
        AddressTakenError: If somebody has it.
        StartupError: If it cannot be bound for another reason.
    """
    bound_socket(endpoint).close()


def listener_of(port: int) -> psutil.Process | None:
    """Return the process that listens on a port; None when there is none or it is another user's."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,):
                return None if connection.pid is None else psutil.Process(connection.pid)
    except psutil.Error:
        pass
    return None


def _holder(port: int) -> str | None:
    listener = listener_of(port)
    try:
        return f"{listener.name()} (process {listener.pid})" if listener else None
    except psutil.Error:
        return None  # it has ended by now

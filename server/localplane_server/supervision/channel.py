"""Messages between the server, its keeper and its wardens: JSON objects, with file descriptors.

They travel over AF_UNIX SOCK_SEQPACKET socket pairs, so a message is whole or not there, and the
death of one end is an end of file at the other. Standard library only.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

_MESSAGE_BYTES = 65536
_DESCRIPTORS = 4
_INT = struct.Struct("i")


class Received(NamedTuple):
    """What one message brought."""

    message: dict[str, Any]
    """The message."""
    descriptors: list[int]
    """File descriptors that came with it. They now belong to the receiver."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a new channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send one message.

    Raises:
        BlockingIOError: If the end does not block and the other one does not read.
        ConnectionError: If the other end is gone.
    """
    socket.send_fds(end, [json.dumps(message).encode()], descriptors)


def receive(end: socket.socket) -> Received | None:
    """Return the next message, or None when the other end is gone.

    Raises:
        BlockingIOError: If the end does not block and there is no message.
    """
    try:
        # Not `socket.recv_fds`, which ignores its flags: backends would inherit descriptors.
        data, ancillary, _, _ = end.recvmsg(
            _MESSAGE_BYTES, socket.CMSG_SPACE(_DESCRIPTORS * _INT.size), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:
        return None  # the other end went without having read all of ours
    descriptors = [
        number
        for level, kind, content in ancillary
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS
        for (number,) in _INT.iter_unpack(content)
    ]
    return Received(json.loads(data), descriptors) if data else None

"""Starting a keeper from the server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from localplane_server.supervision import channel, prctl

_PROGRAM = Path(__file__).with_name("keeper.py")


@dataclass(frozen=True, slots=True)
class KeeperHandle:
    """A keeper that was started."""

    process: subprocess.Popen[bytes]
    """Its process, the leader of a session that holds it and its wardens only."""
    channel: socket.socket
    """The server's end of the channel. Once it is closed, the keeper ends everything and exits."""


def start_keeper() -> KeeperHandle:
    """Start a keeper and return at once.

    Call it before the process has threads or gRPC objects. Starting another one later, in place of
    one that died, is safe too: it is an exec right after a vfork, without any code of Python's
    between the two.

    The calling process becomes a child subreaper, so that it adopts what a keeper that is killed
    leaves behind.

    Raises:
        OSError: If the process cannot be started.
    """
    prctl.become_subreaper()
    ours, theirs = channel.pair()
    with theirs:
        try:
            process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-I", "-S", str(_PROGRAM), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if _is_open(2) else subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Ctrl-C at a terminal is for the server, and the session tells wardens from all
                # other processes.
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
    ours.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return KeeperHandle(process, ours)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True

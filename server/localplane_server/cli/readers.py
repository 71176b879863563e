"""Notices that nobody reads what a command writes any more, while it has nothing to write."""

from __future__ import annotations

import io
import os
import select
import sys
import threading

from localplane_server.cli.session import INTERRUPTED


def end_with_reader() -> None:
    """End this command, with the code of Ctrl-C, once the other end of the pipe that it writes to is closed.

    A command that writes again only when something changes would else go on for as long as nothing does.
    """
    try:
        output = sys.stdout.fileno()
    except io.UnsupportedOperation:
        return
    threading.Thread(target=_watch, args=(output,), name="reader", daemon=True).start()


def _watch(output: int) -> None:
    watched = select.poll()
    # Of no event, so that only what is told unasked ends it: files and terminals tell nothing.
    watched.register(output, 0)
    watched.poll()
    # At once: an interrupt may come where it is swallowed, and there is nothing to put in order.
    os._exit(INTERRUPTED)

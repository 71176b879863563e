"""Notices that nobody reads what a command writes any more, while it has nothing to write."""

from __future__ import annotations

import _thread
import io
import select
import sys
import threading


def end_with_reader() -> None:
    """Interrupt this command, as Ctrl-C does, once the other end of the pipe that it writes to is closed.

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
    _thread.interrupt_main()

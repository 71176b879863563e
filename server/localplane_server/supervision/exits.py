"""How processes end, in words. Standard library only."""

from __future__ import annotations

import signal


def in_words(returncode: int, *, memory_kills: int = 0) -> str:
    """Return how a process ended, such as `exit code 1` or `signal SIGKILL`.

    Args:
        returncode: The exit code, or a signal as a negative number.
        memory_kills: How many processes the kernel has killed for want of memory meanwhile.
    """
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        text = f"signal {signal.Signals(-returncode).name}"
    except ValueError:
        text = f"signal {-returncode}"  # a real-time signal
    if memory_kills and -returncode == signal.SIGKILL:
        text += ", most likely for want of memory: the kernel has killed for it meanwhile"
    return text

"""Shows on a terminal that something goes on."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from types import TracebackType
from typing import Self

_FRAMES = "|/-\\"
_FRAME_SECONDS = 0.1
# An answer that comes at once needs no sign of life, and a flicker is none.
_PATIENCE_SECONDS = 0.3
_CLEAR = "\r\x1b[K"


def is_terminal() -> bool:
    """Whether a person looks at standard error, on a terminal that can move its cursor."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class Spinner:
    """Turns on standard error until it is stopped or its context ends. Nothing happens without a terminal."""

    def __init__(self, text: str, *, is_shown: bool = True) -> None:
        self._text = text
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._turn, daemon=True)
        self._is_shown = is_shown and is_terminal()

    def stop(self) -> None:
        """Take it away. Doing so again does nothing."""
        self._has_ended.set()
        if self._is_shown:
            self._thread.join()

    def __enter__(self) -> Self:
        if self._is_shown:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _turn(self) -> None:
        if self._has_ended.wait(_PATIENCE_SECONDS):
            return
        began = time.monotonic() - _PATIENCE_SECONDS
        for frame in itertools.cycle(_FRAMES):
            seconds = time.monotonic() - began
            sys.stderr.write(f"\r{frame} {self._text} ({seconds:.0f} s)")
            sys.stderr.flush()
            if self._has_ended.wait(_FRAME_SECONDS):
                break
        sys.stderr.write(_CLEAR)
        sys.stderr.flush()

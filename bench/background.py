"""Does something again and again in a thread while something else is timed."""

from __future__ import annotations

import threading
from collections.abc import Callable

Work = Callable[[threading.Event, threading.Event], None]
"""Does it until the first event is set, and sets the second once it has begun."""


class Background:
    """Some work for as long as the context is open, which opens once it has begun."""

    def __init__(self, work: Work) -> None:
        self._is_over = threading.Event()
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=work, args=(self._is_over, self._has_begun))

    def __enter__(self) -> None:
        self._thread.start()
        self._has_begun.wait()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

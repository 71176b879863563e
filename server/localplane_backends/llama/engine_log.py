"""The engine's log: the only place where it says why a load failed and what memory it took.

The engine logs to standard error. While a model loads, the log is also written to a file through
the engine's own logger, whose C++ functions the module exports; a redirected standard error would
lose the last words of a crash.
"""

from __future__ import annotations

import ctypes
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

VERBOSE = 4
"""The level at which the engine reports its buffers."""
QUIET = 2
"""Warnings and errors only: at the verbose level each request writes some twenty lines."""

LINE = re.compile(r"^[\d.]+ (?P<level>[A-Z]) (?P<text>.*)$")
BUFFER = re.compile(r"(?P<what>model|KV|RS|compute|output) buffer size =\s*(?P<mib>[\d.]+) MiB")
PARTS = {
    "model": "weights",
    "KV": "kv_cache",
    # Recurrent models keep their state in place of keys and values.
    "RS": "kv_cache",
    "compute": "compute",
    "output": "compute",
}
EMPTY_WORDS = re.compile(r"failed to (load model|create.context|read header)|exiting due to")
"""Lines that only repeat that it failed."""
ORIGIN = re.compile(r"^(?:srv|cmn|slot|spec)?\s*[\w~() ]+: ")
"""Which function of the engine speaks."""


class EngineLog:
    """The logger inside the engine's library."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library._Z15common_log_mainv.restype = ctypes.c_void_p  # noqa: SLF001
        self._set_file = self._library._Z19common_log_set_fileP10common_logPKc  # noqa: SLF001
        self._set_file.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
        self._set_file.restype = None

    @contextmanager
    def copied_to(self, file: Path) -> Iterator[None]:
        """Write the log to a file too while the context is open; then make the log quiet."""
        main = self._library._Z15common_log_mainv()  # noqa: SLF001
        self._set_file(main, str(file).encode())
        try:
            yield
        finally:
            # This also waits for the thread that writes the log.
            self._set_file(main, None)
            self._library._Z30common_log_set_verbosity_tholdi(QUIET)  # noqa: SLF001


def memory_of(log: str) -> dict[str, int]:
    """Return the bytes of the buffers that a load made: `weights`, `kv_cache` and `compute`."""
    parts: dict[str, int] = {}
    for match in BUFFER.finditer(log):
        part = PARTS[match["what"]]
        parts[part] = parts.get(part, 0) + round(float(match["mib"]) * 1024 * 1024)
    return parts


def cause_of_failure(log: str) -> str:
    """Return why a load failed, or an empty text where the log does not say."""
    causes = []
    for line in log.splitlines():
        match = LINE.match(line)
        if match and match["level"] == "E" and not EMPTY_WORDS.search(match["text"]):
            cause = ORIGIN.sub("", match["text"]).removeprefix("error loading model: ").strip()
            if cause and cause not in causes:
                causes.append(cause)
    return "; ".join(causes)

"""Shows how far a job is: a bar that moves on a terminal, else a line for each step."""

from __future__ import annotations

import os
import shutil
import sys
from types import TracebackType
from typing import Self, TextIO

from localplane.v1 import job_pb2
from localplane_server.cli.spinner import is_terminal
from localplane_server.cli.text import printable, size

BAR_WIDTH = 24
STEP_PERCENT = 10
"""How much further a job has to be for another line where there is no terminal."""
_WITHOUT_BYTES = ("converting", "unpacking")
"""Phases that get on and fetch nothing."""
_CLEAR = "\r\x1b[K"
_MINUTE, _HOUR = 60, 3600


class JobProgress:
    """Shows a job on standard error. A context: leaving it ends the line of the bar."""

    def __init__(self, *, is_shown: bool = True, stream: TextIO | None = None) -> None:
        """Show nothing yet.

        Args:
            is_shown: Whether anything is to be shown.
            stream: Where. Default: standard error.
        """
        self._stream = stream or sys.stderr
        self._is_shown = is_shown
        self._has_bar = is_shown and is_terminal()
        self._is_drawn = False
        self._step: tuple[str, str, int] | None = None

    def show(self, job: job_pb2.Job) -> None:
        """Show where a job is now."""
        if not self._is_shown:
            return
        if self._has_bar:
            columns = shutil.get_terminal_size().columns
            self._stream.write(f"{_CLEAR}{bar_line(job)[: columns - 1]}")
            self._stream.flush()
            self._is_drawn = True
            return
        step = (job.phase, job.file_name, int(job.progress // STEP_PERCENT))
        if step != self._step:
            self._step = step
            self._stream.write(step_line(job) + os.linesep)
            self._stream.flush()

    def clear(self) -> None:
        """Take the bar away."""
        if self._is_drawn:
            self._stream.write(_CLEAR)
            self._stream.flush()
            self._is_drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.clear()


def bar_line(job: job_pb2.Job) -> str:
    """Return a job as one line with a bar, the rate and how long it still takes."""
    name = printable(job.gallery_element_name)
    if not job.total_bytes:
        return f"{name}  {printable(job.phase)}"
    done = round(BAR_WIDTH * job.progress / 100)
    parts = [
        name,
        f"[{'#' * done}{'.' * (BAR_WIDTH - done)}]",
        f"{job.progress:3.0f} %",
        f"{size(job.current_bytes)} of {size(job.total_bytes)}",
    ]
    if job.phase == "downloading":
        if job.HasField("rate"):
            parts.append(f"{size(round(job.rate))}/s")
        if job.HasField("eta"):
            parts.append(f"{clock(job.eta)} left")
    else:
        parts.append(printable(job.phase))
    return "  ".join(parts)


def step_line(job: job_pb2.Job) -> str:
    """Return a job as a line of a log."""
    name = printable(job.gallery_element_name)
    file = f" {printable(job.file_name)}" if job.file_name else ""
    if job.total_bytes and job.phase in _WITHOUT_BYTES:
        return f"{name}: {printable(job.phase)}{file}, {job.progress:.0f} %"
    if not job.total_bytes or job.phase != "downloading":
        return f"{name}: {printable(job.phase)}{file}"
    amount = f"{size(job.current_bytes)} of {size(job.total_bytes)}"
    return f"{name}: {printable(job.phase)}{file}, {job.progress:.0f} %, {amount}"


def clock(seconds: float) -> str:
    """Return a time in hours, minutes and seconds."""
    whole = round(seconds)
    if whole >= _HOUR:
        return f"{whole // _HOUR}:{whole % _HOUR // _MINUTE:02}:{whole % _MINUTE:02}"
    return f"{whole // _MINUTE}:{whole % _MINUTE:02}"

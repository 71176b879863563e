"""How far a piece of work has come."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, replace

MOST_PERCENT = 99.0
"""What no work gets beyond before its job is completed: even when all bytes are there, they are to be put in place."""
WAITING = "waiting"
"""Phase of work that waits for that of another job. It needs no place among those that run meanwhile."""
WINDOW_SECONDS = 10.0
"""How much of the past the rate is taken from."""


class FileStage(enum.Enum):
    """What happens to one file of a job."""

    QUEUED = "queued"
    """It waits for its turn."""
    DOWNLOADING = "downloading"
    """It comes in."""
    VERIFYING = "verifying"
    """It is all there and its digest is being checked."""
    CONVERTING = "converting"
    """It is being made of others."""
    UNPACKING = "unpacking"
    """It is being taken out of an archive."""
    DONE = "done"
    """It is whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """How far one file has come."""

    name: str
    """Its name, as the model's folder will have it."""
    done_bytes: int = 0
    """What is verified to be on the disk."""
    total_bytes: int | None = None
    """Its size. None while it is not known."""
    stage: FileStage = FileStage.QUEUED
    """What happens to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """How far a job has come, as its work reports it."""

    phase: str = ""
    """What happens at the moment, in a word: `resolving`, `downloading`, `verifying`, `converting`, `unpacking`,
    `publishing`, ..."""
    done_bytes: int = 0
    """Of all files, what is verified to be on the disk."""
    total_bytes: int | None = None
    """Size of all files. None while one of them is not known."""
    files: tuple[FileState, ...] = ()
    """The files, in the order of the work. What is unpacked is one of them, and no part of the bytes above."""

    @property
    def percent(self) -> float:
        """The share of the work that is done, from 0 to `MOST_PERCENT`. 0 while it is not known how much it is."""
        done, total = self.done_bytes, self.total_bytes
        totals = [one.total_bytes for one in self.files]
        if total and None not in totals:
            done = sum(one.done_bytes for one in self.files) or done
            total = sum(one for one in totals if one is not None) or total
        return min(MOST_PERCENT, 100.0 * done / total) if total else 0.0

    @property
    def current_file(self) -> str:
        """Name of the file that the work is at: the first that has begun and is not done. Empty when there is none."""
        idle = (FileStage.QUEUED, FileStage.DONE)
        return next((one.name for one in self.files if one.stage not in idle), "")

    def after(self, before: JobProgress) -> JobProgress:
        """Return this progress as it follows another of the same job: nothing that was done is undone.

        Work that begins again after a restart counts its bytes from the start; what was verified once stays counted.
        """
        known = {one.name: one.done_bytes for one in before.files}
        files = tuple(
            replace(one, done_bytes=max(one.done_bytes, known.get(one.name, 0)))
            for one in self.files
        )
        return replace(
            self,
            done_bytes=max(self.done_bytes, before.done_bytes),
            total_bytes=before.total_bytes if self.total_bytes is None else self.total_bytes,
            files=files or before.files,
        )


class RateMeter:
    """Tells how fast bytes come in, from the last few seconds of one run."""

    def __init__(self, window_seconds: float = WINDOW_SECONDS) -> None:
        self._window_seconds = window_seconds
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, at: float, done_bytes: int) -> None:
        """Take note of how far it is at a time, in seconds of a clock that never goes back."""
        samples = self._samples
        samples.append((at, done_bytes))
        # The sample from just before the window stays: the window has to have a beginning.
        while len(samples) > 2 and samples[1][0] <= at - self._window_seconds:  # noqa: PLR2004 - two make a rate
            samples.popleft()

    def rate(self, at: float) -> float | None:
        """Return bytes per second up to a time. None before there is anything to tell it from."""
        if len(self._samples) < 2:  # noqa: PLR2004 - two make a rate
            return None
        began, first = self._samples[0]
        _, last = self._samples[-1]
        seconds = at - began
        return (last - first) / seconds if seconds > 0 else None


def eta_seconds(progress: JobProgress, rate: float | None) -> float | None:
    """Return how long the rest takes at a rate, in seconds. None when that cannot be known."""
    if not rate or progress.total_bytes is None:
        return None
    return max(0, progress.total_bytes - progress.done_bytes) / rate

"""Figures of process trees as the operating system counts them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import psutil

from localplane_server.supervision.memory_limit import memory_limit_bytes

_Key = TypeVar("_Key", bound=Hashable)

MIN_WINDOW_SECONDS = 1.0
"""The shortest window for a share of processor time. A call within it repeats the last share."""
FORGET_SECONDS = 60.0
"""How long a process that is not sampled is remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSample:
    """Figures of one process tree at one moment. What is unknown is None, and says why."""

    processes: int
    """Living processes."""
    threads: int
    """Threads, summed over the tree."""
    open_files: int | None
    """Open file descriptors, summed over the tree."""
    rss_bytes: int
    """Resident memory, summed over the tree; memory that processes share counts for each."""
    vms_bytes: int
    """Virtual memory, summed over the tree."""
    pss_bytes: int | None
    """Resident memory, what is shared divided among those that share it. Only on request."""
    memory_percent: float
    """Resident memory in percent of the memory that may be used."""
    cpu_percent: float | None
    """Processor time since the sample before; 100 is one core."""
    sampled_at: datetime
    """When, in UTC."""
    unknown: Mapping[str, str]
    """Why a figure is None, by the figure's name."""


@dataclass(frozen=True, slots=True)
class _Reading:
    identity: tuple[int, float]
    cpu_seconds: float
    rss: int
    vms: int
    threads: int
    files: int | None
    pss: int | None


@dataclass(slots=True)
class _Past:
    """What is remembered of one process."""

    cpu_seconds: float
    at: float
    percent: float | None
    """Share over the last window. None before there are two samples."""


class Sampler:
    """Samples process trees and remembers what is needed for shares of processor time.

    Remembers processes by number and start time, so a number that is used again is not mistaken.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.monotonic,
        memory_limit: Callable[[], int] = memory_limit_bytes,
    ) -> None:
        self._now = now
        self._memory_limit = memory_limit
        self._past: dict[tuple[int, float], _Past] = {}
        self._lock = threading.Lock()

    async def sample(
        self, trees: Mapping[_Key, Sequence[int]], *, with_pss: bool = False
    ) -> dict[_Key, TreeSample]:
        """Sample trees without holding up the event loop.

        A tree of which no process is left is missing from the result.

        Args:
            trees: The processes of each tree.
            with_pss: Whether to read `pss_bytes`, which takes long for large processes.
        """
        return await asyncio.to_thread(self.sample_now, trees, with_pss=with_pss)

    def sample_now(
        self, trees: Mapping[_Key, Sequence[int]], *, with_pss: bool = False
    ) -> dict[_Key, TreeSample]:
        """Sample trees; for callers without an event loop."""
        limit = self._memory_limit()
        readings = {
            key: [reading for pid in pids if (reading := _read(pid, with_pss=with_pss))]
            for key, pids in trees.items()
        }
        with self._lock:
            now = self._now()
            samples = {
                key: self._summed(tree, now, limit, with_pss=with_pss)
                for key, tree in readings.items()
                if tree
            }
            self._past = {
                identity: past
                for identity, past in self._past.items()
                if now - past.at < FORGET_SECONDS
            }
        return samples

    def _summed(
        self, tree: Sequence[_Reading], now: float, limit: int, *, with_pss: bool
    ) -> TreeSample:
        rss = sum(reading.rss for reading in tree)
        cpu_percent = self._cpu_percent(tree, now)
        open_files = _sum([reading.files for reading in tree])
        pss = _sum([reading.pss for reading in tree]) if with_pss else None
        unknown = {}
        if cpu_percent is None:
            unknown["cpu_percent"] = "there are not two samples yet"
        if open_files is None:
            unknown["open_files"] = "not allowed to read it"
        if pss is None:
            unknown["pss_bytes"] = "not allowed to read it" if with_pss else "not asked for"
        return TreeSample(
            processes=len(tree),
            threads=sum(reading.threads for reading in tree),
            open_files=open_files,
            rss_bytes=rss,
            vms_bytes=sum(reading.vms for reading in tree),
            pss_bytes=pss,
            memory_percent=100 * rss / limit,
            cpu_percent=cpu_percent,
            sampled_at=datetime.now(UTC),
            unknown=unknown,
        )

    def _cpu_percent(self, tree: Sequence[_Reading], now: float) -> float | None:
        known = [past for reading in tree if (past := self._past.get(reading.identity))]
        # A process without a past in a tree that has one was started within the window.
        window = max((now - past.at for past in known), default=None)
        shares = [self._share(reading, now, window) for reading in tree]
        known_shares = [share for share in shares if share is not None]
        return sum(known_shares) if known_shares else None

    def _share(self, reading: _Reading, now: float, window: float | None) -> float | None:
        past = self._past.get(reading.identity)
        if past is None:
            percent = None
            if window is not None and window >= MIN_WINDOW_SECONDS:
                percent = 100 * reading.cpu_seconds / window
            self._past[reading.identity] = _Past(reading.cpu_seconds, now, percent)
            return percent
        if now - past.at >= MIN_WINDOW_SECONDS:
            # Not below zero: the kernel's figures may step back by a tick.
            used = max(0.0, reading.cpu_seconds - past.cpu_seconds)
            past.percent = 100 * used / (now - past.at)
            past.cpu_seconds, past.at = reading.cpu_seconds, now
        return past.percent


def _read(pid: int, *, with_pss: bool) -> _Reading | None:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            cpu = process.cpu_times()
            memory = process.memory_info()
            return _Reading(
                identity=(pid, process.create_time()),
                cpu_seconds=cpu.user + cpu.system,
                rss=memory.rss,
                vms=memory.vms,
                threads=process.num_threads(),
                files=_allowed(process.num_fds),
                pss=_allowed(lambda: process.memory_full_info().pss) if with_pss else None,
            )
    except psutil.NoSuchProcess:
        return None  # it ended meanwhile, or is a zombie, which has nothing


def _allowed(read: Callable[[], int]) -> int | None:
    try:
        return read()
    except psutil.AccessDenied:
        return None


def _sum(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None

"""Figures of process trees."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import psutil
import pytest

from localplane_server.supervision.sampling import FORGET_SECONDS, Sampler

BUSY = "print(flush=True)\nwhile True: pass"


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sampler(clock: Clock) -> Sampler:
    return Sampler(now=clock, memory_limit=lambda: 1 << 30)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that computes."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", BUSY], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
        child.kill()


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


def computed(pid: int, more: float) -> None:
    """Wait until a process has used more processor time."""
    start = psutil.Process(pid).cpu_times().user
    while psutil.Process(pid).cpu_times().user < start + more:
        pass


class TestSums:
    async def test_tree(self, sampler: Sampler, child: subprocess.Popen[bytes]) -> None:
        """Memory, threads and open files are summed over the tree."""
        samples = await sampler.sample(
            {"both": [os.getpid(), child.pid], "one": [child.pid], "self": [os.getpid()]}
        )

        both, one, alone = samples["both"], samples["one"], samples["self"]
        assert (2, 1, 1) == (both.processes, one.processes, alone.processes)
        # Within one call nothing of the child changes; this process may grow.
        assert both.rss_bytes - one.rss_bytes == pytest.approx(alone.rss_bytes, rel=0.2)
        assert both.vms_bytes > one.vms_bytes > one.rss_bytes > 1 << 20
        assert both.threads == one.threads + alone.threads
        assert 1 == one.threads
        assert one.open_files is not None
        assert one.open_files >= 3
        assert one.memory_percent == pytest.approx(100 * one.rss_bytes / (1 << 30))
        assert abs((datetime.now(UTC) - one.sampled_at).total_seconds()) < 60

    async def test_proportional_memory(
        self, sampler: Sampler, child: subprocess.Popen[bytes]
    ) -> None:
        """Proportional memory comes on request only, and is no more than what is resident."""
        plain = (await sampler.sample({1: [child.pid]}))[1]
        asked = (await sampler.sample({1: [child.pid]}, with_pss=True))[1]

        assert plain.pss_bytes is None
        assert "not asked for" == plain.unknown["pss_bytes"]
        assert asked.pss_bytes is not None
        assert 0 < asked.pss_bytes <= asked.rss_bytes
        assert "pss_bytes" not in asked.unknown

    async def test_process_that_vanished(
        self, sampler: Sampler, child: subprocess.Popen[bytes], gone: int
    ) -> None:
        """A process that ended meanwhile is no error, and a tree without any is missing."""
        samples = await sampler.sample({"gone": [gone], "part": [gone, child.pid]})

        assert ["part"] == list(samples)
        assert 1 == samples["part"].processes


class TestProcessorTime:
    def test_needs_two_samples(
        self, sampler: Sampler, clock: Clock, child: subprocess.Popen[bytes]
    ) -> None:
        """The first sample has no share, the second has the share of the time between the two."""
        first = sampler.sample_now({1: [child.pid]})[1]
        computed(child.pid, 0.1)
        clock.now += 2
        second = sampler.sample_now({1: [child.pid]})[1]

        assert first.cpu_percent is None
        assert "there are not two samples yet" == first.unknown["cpu_percent"]
        assert "cpu_percent" not in second.unknown
        assert second.cpu_percent is not None
        # At least 0.1 s in 2 s; how much more depends on how busy the machine is.
        assert second.cpu_percent >= 5

    def test_short_window_repeats_the_last_share(
        self, sampler: Sampler, clock: Clock, child: subprocess.Popen[bytes]
    ) -> None:
        """A call soon after another does not make a share out of almost no time."""
        sampler.sample_now({1: [child.pid]})
        computed(child.pid, 0.05)
        clock.now += 2
        share = sampler.sample_now({1: [child.pid]})[1].cpu_percent
        computed(child.pid, 0.05)
        clock.now += 0.5

        assert share == sampler.sample_now({1: [child.pid]})[1].cpu_percent

    def test_child_that_was_started_within_the_window(
        self, sampler: Sampler, clock: Clock, child: subprocess.Popen[bytes]
    ) -> None:
        """A process that is new in a known tree counts with all that it has used."""
        sampler.sample_now({1: [os.getpid()]})
        computed(child.pid, 0.05)
        clock.now += 2

        share = sampler.sample_now({1: [os.getpid(), child.pid]})[1].cpu_percent
        used = psutil.Process(child.pid).cpu_times().user

        assert share is not None
        assert share >= 100 * 0.05 / 2
        assert used >= 0.05

    def test_forgets_what_is_gone(
        self, sampler: Sampler, clock: Clock, child: subprocess.Popen[bytes]
    ) -> None:
        """Processes that are not sampled any more are not remembered for ever."""
        sampler.sample_now({1: [child.pid]})
        clock.now += FORGET_SECONDS
        sampler.sample_now({1: [os.getpid()]})

        assert [os.getpid()] == [pid for pid, _ in sampler._past]

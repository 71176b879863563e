"""Loads and unloads in their hundreds leave the service as it was."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from served import Served, served

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

CYCLES = int(os.environ.get("LOCALPLANE_SOAK_CYCLES", "300"))
WARM_UP = 100
"""Cycles after which caches are full, pools have their size and the allocator has its arenas."""
LEAK_BYTES = 16_384
"""What a cycle may add, on the average, to the memory of the service. The allocator's arenas come and go by a mebibyte,
which is some thousand bytes for each of 300 cycles; a channel or a process that is kept is more."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process holds."""

    uss: int
    """Bytes of memory that nobody else has."""
    descriptors: int
    """Open files, sockets and pipes."""
    threads: int
    """Threads."""
    descendants: int
    """Processes below it."""


def sample(process: psutil.Process) -> Sample:
    return Sample(
        process.memory_full_info().uss,
        process.num_fds(),
        process.num_threads(),
        len(process.children(recursive=True)),
    )


def cycle(service: Served) -> None:
    service.load("tiny.gguf")
    body = {"model": "tiny.gguf", "prompt": "a", "max_tokens": 2}
    service.post("/v1/completions", **body).raise_for_status()
    service.post("/backend/shutdown", model="tiny.gguf").raise_for_status()


def slope(values: list[int]) -> float:
    """Return how much a cycle adds: the slope of the straight line nearest to the values."""
    middle = (len(values) - 1) / 2
    mean = sum(values) / len(values)
    spread = sum((index - middle) ** 2 for index in range(len(values)))
    return sum((index - middle) * (one - mean) for index, one in enumerate(values)) / spread


def test_load_cycles(tmp_path: Path, tiny_gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Memory, descriptors, threads and processes of service and keeper do not grow."""
    models = tmp_path / "data" / "models"
    models.mkdir(parents=True)
    shutil.copy(tiny_gguf, models / "tiny.gguf")
    with served(folder=tmp_path / "data") as service:
        processes = {"serve": psutil.Process(service.process.pid), "keeper": service.keeper}
        samples: dict[str, list[Sample]] = {name: [] for name in processes}
        for _ in range(WARM_UP + CYCLES):
            cycle(service)
            for name, process in processes.items():
                samples[name].append(sample(process))

    for name, taken in samples.items():
        steady = taken[WARM_UP:]
        grows = slope([one.uss for one in steady])
        with capsys.disabled():
            first, last = steady[0], steady[-1]
            sys.stdout.write(
                f"\n{name}, {len(steady)} cycles: {grows:+.0f} bytes a cycle,"
                f" memory {first.uss >> 10} to {last.uss >> 10} KiB,"
                f" descriptors {first.descriptors} to {last.descriptors},"
                f" threads {first.threads} to {last.threads},"
                f" descendants {first.descendants} to {last.descendants}\n"
            )
        assert grows < LEAK_BYTES
        # A connection that is being closed may come on top, but never one for each cycle.
        assert abs(slope([one.descriptors for one in steady])) < 0.01
        assert max(one.threads for one in steady) <= taken[WARM_UP - 1].threads + 2
        assert {one.descendants for one in steady} == {taken[0].descendants}

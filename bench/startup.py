"""Times the start of `serve` against the import of the libraries that it cannot do without.

Usage: ``python bench/startup.py [--json] [--rounds N]``. A start lasts until the line that says
`ready`. What an idle service holds in memory is told besides: RSS counts pages that processes share
in each of them, PSS divides them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass

import psutil
from programs import ENVIRONMENT, Server, memory_mib, service
from rounds import Reading, arguments, comparison, report, take_turns

LIBRARIES = "import grpc, connexion, uvicorn"
TARGET = 0.5
"""Twice the time."""


@dataclass(frozen=True, slots=True)
class Start:
    """What one start took."""

    seconds: float
    """By the clock."""

    cpu_seconds: float
    """Of the processor."""


def main() -> None:
    """Compare and print."""
    options = arguments(__doc__, rounds=9)
    pairs = take_turns(_start_service, _import_libraries, rounds=options.rounds)
    results = [
        comparison(
            "start of serve",
            [(mine.seconds * 1000, other.seconds * 1000) for mine, other in pairs],
            unit="ms",
            target=TARGET,
        ),
        comparison(
            "start of serve, processor time",
            [(mine.cpu_seconds * 1000, other.cpu_seconds * 1000) for mine, other in pairs],
            unit="ms",
            target=TARGET,
        ),
    ]
    with service() as server:
        memory = _memory_of_idle(server)
    report([*results, *memory], as_json=options.json)


def _start_service() -> Start:
    with service() as server:
        return Start(server.start_seconds, server.start_cpu_seconds)


def _import_libraries() -> Start:
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-P", "-c", LIBRARIES], env=ENVIRONMENT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return Start(time.perf_counter() - began, usage.ru_utime + usage.ru_stime)


def _memory_of_idle(server: Server) -> list[Reading]:
    keeper = psutil.Process(server.pid).children()[0]
    readings = []
    for name, pid in (("serve", server.pid), ("keeper", keeper.pid)):
        rss, pss = memory_mib(pid)
        readings += [
            Reading(name=f"{name}, idle, RSS", unit="MiB", value=rss),
            Reading(name=f"{name}, idle, PSS", unit="MiB", value=pss),
        ]
    return readings


if __name__ == "__main__":
    main()

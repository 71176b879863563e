"""The programs that are measured, each as a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

FOLDER = Path(__file__).resolve().parent
READY = re.compile(r"ready grpc=(\S+) http=(\S+) pid=\d+")
CALL_MAIN = "from localplane_server.cli import main; main()"
LOCALPLANE = (sys.executable, "-P", "-c", CALL_MAIN)
"""`localplane`, whether or not it was installed as a command."""
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}
"""What the programs inherit: one that compiles its modules anew at each start tells nothing."""
END_SECONDS = 30.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that runs."""

    pid: int
    """Its process."""

    grpc: str
    """Where it speaks gRPC. Empty when it does not."""

    http: str
    """Where it speaks HTTP. Empty when it does not."""

    start_seconds: float
    """From its start until it said that it is ready."""

    start_cpu_seconds: float
    """Processor time that it had taken by then."""

    @property
    def cpu_seconds(self) -> float:
        """Processor time that it has taken so far."""
        return cpu_seconds(self.pid)


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and its threads, without its children."""
    # The name in parentheses may hold blanks; what follows it holds none.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


@contextmanager
def service(*options: str, models: Path | None = None) -> Generator[Server]:
    """Run `localplane serve` with a data directory of its own, its log in a file there.

    Args:
        options: What follows `serve`, besides the data directory and free ports.
        models: Folder of its models. Default: an empty one.
    """
    with tempfile.TemporaryDirectory(prefix="localplane-bench-") as folder:
        where = ("--data-dir", folder, "--grpc-listen", "127.0.0.1:0")
        ports = ("--http-listen", "127.0.0.1:0")
        path = ("--models-path", str(models)) if models else ()
        argv = (*LOCALPLANE, "serve", *where, *ports, *path, *options)
        with _server(argv, {}, Path(folder, "service.log")) as server:
            yield server


@contextmanager
def bare(function: str, **environment: str) -> Generator[Server]:
    """Run a function of `bare_servers` as a process of its own."""
    code = f"import bare_servers; bare_servers.{function}()"
    environment = {"PYTHONPATH": str(FOLDER), **environment}
    with (
        tempfile.TemporaryDirectory(prefix="localplane-bench-") as folder,
        _server((sys.executable, "-c", code), environment, Path(folder, "bare.log")) as server,
    ):
        yield server


@contextmanager
def _server(argv: tuple[str, ...], environment: Mapping[str, str], log: Path) -> Generator[Server]:
    began = time.perf_counter()
    with log.open("wb") as errors:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**ENVIRONMENT, **environment},
        )
    try:
        assert process.stdout is not None
        found = READY.match(process.stdout.readline())
        seconds = time.perf_counter() - began
        if found is None:
            raise RuntimeError(f"not ready: {log.read_text(errors='replace')}")
        yield Server(
            pid=process.pid,
            grpc=found[1].removeprefix("-"),
            http=found[2].removeprefix("-"),
            start_seconds=seconds,
            start_cpu_seconds=cpu_seconds(process.pid),
        )
    finally:
        _end(process)


class Worker:
    """A process that does one thing at a time when it is told to: a function of `bare_engine`."""

    def __init__(self, function: str) -> None:
        code = f"import bare_engine; bare_engine.{function}()"
        self._process = subprocess.Popen(
            (sys.executable, "-c", code),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # As the service has it for its backends.
            env={**ENVIRONMENT, "PYTHONPATH": str(FOLDER), "OMP_WAIT_POLICY": "PASSIVE"},
        )

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def do(self, **task: object) -> Any:
        """Have it do something and return what came of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended with code {self._process.wait()}")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._process)


def _end(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def memory_mib(pid: int) -> tuple[float, float]:
    """Return the resident and the proportional memory of a process."""
    memory = psutil.Process(pid).memory_full_info()
    return memory.rss / 2**20, memory.pss / 2**20

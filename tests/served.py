"""`localplane serve` as a process of its own, for tests that look at it from outside."""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

READY = re.compile(r"ready grpc=(\S+) http=(\S+) pid=(\d+)")
LOCALPLANE = (sys.executable, "-P", "-c", "from localplane_server.cli import main; main()")
PATIENCE_SECONDS = 30.0
WITHOUT_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of plain HTTP, which otherwise read the web's authorities each time, for 40 ms."""


@dataclass(frozen=True, slots=True)
class Served:
    """A service that runs."""

    process: subprocess.Popen[str]
    """It."""
    grpc: str
    """Where gRPC listens."""
    http: str
    """Where REST listens."""
    log: Path
    """What it writes to standard error."""

    @property
    def tree(self) -> list[psutil.Process]:
        """The service and all that descends from it."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    @property
    def keeper(self) -> psutil.Process:
        """The keeper."""
        return next(one for one in self.tree if "keeper.py" in " ".join(one.cmdline()))

    def post(self, path: str, **body: Any) -> httpx.Response:
        """Call a route with a JSON body."""
        return self._call("POST", path, json=body)

    def get(self, path: str, **query: Any) -> httpx.Response:
        """Call a route."""
        return self._call("GET", path, params=query)

    def _call(self, verb: str, path: str, **sent: Any) -> httpx.Response:
        url = f"http://{self.http}{path}"
        return httpx.request(verb, url, timeout=PATIENCE_SECONDS, verify=WITHOUT_TLS, **sent)

    def load(self, model: str) -> psutil.Process:
        """Load a model and return its backend's process."""
        self.post("/backend/load", model=model).raise_for_status()
        return psutil.Process(self.get("/backend/monitor", model=model).json()["pid"])


def start(*arguments: str, folder: Path, **environment: str) -> Served:
    """Start a service on free ports and return once it is ready.

    Args:
        arguments: What follows `serve`.
        folder: Its data directory; its log goes beside it.
        environment: Variables to add.
    """
    return start_program(LOCALPLANE, *arguments, folder=folder, **environment)


def start_program(
    program: tuple[str, ...], *arguments: str, folder: Path, **environment: str
) -> Served:
    """Start a service as `start` does.

    Args:
        program: What to start in place of `localplane`.
        arguments: What follows `serve`.
        folder: Its data directory; its log goes beside it.
        environment: Variables to add.
    """
    log = folder.with_name(f"{folder.name}.log")
    with log.open("a") as errors:
        process = subprocess.Popen(
            [
                *program,
                "serve",
                *("--data-dir", str(folder)),
                *("--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"),
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **environment},
        )
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
    found = READY.fullmatch(line.strip())
    if found is None:
        process.kill()
        process.wait()
        raise AssertionError(f"not ready: {line!r} {log.read_text()}")
    assert int(found[3]) == process.pid
    return Served(process, found[1], found[2], log)


@contextlib.contextmanager
def served(*arguments: str, folder: Path, **environment: str) -> Iterator[Served]:
    """Run a service for as long as the context is open; leave nothing of it."""
    with ending(start(*arguments, folder=folder, **environment)) as service:
        yield service


@contextlib.contextmanager
def ending(service: Served) -> Iterator[Served]:
    """End a service with the context; leave nothing of it."""
    try:
        yield service
    finally:
        tree = service.tree if service.process.poll() is None else []
        service.process.kill()
        service.process.wait()
        for one in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def wait_until(is_so: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Return once something is so; fail when it does not become so in time."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not become so in time"
        time.sleep(0.01)


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those that still run; what is dead and not yet reaped does not."""
    return [one for one in processes if _is_alive(one)]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

"""Backend programs as processes of a test."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

FAKE = (sys.executable, str(Path(__file__).with_name("fake_backend.py")))
LLAMA = (sys.executable, "-m", "localplane_backends.llama")
LLAMA_SERVER = (sys.executable, str(Path(__file__).with_name("llama_server.py")))
COMMAND = (
    *LLAMA_SERVER,
    *("--port", "{port}", "--model", "{model_file}", "--context-size={context_size:512}"),
)
"""A server with OpenAI's API, as an operator registers a command."""
DEADLINE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Running:
    """A backend program that was started."""

    process: subprocess.Popen[bytes]
    """It."""
    address: str
    """Where it listens, or will."""
    log: Path
    """What it writes to standard output and standard error."""


@contextlib.contextmanager
def running(
    command: tuple[str, ...], folder: Path, *, address: str = "", **environment: str
) -> Iterator[Running]:
    """Run a backend program for as long as the context is open.

    Args:
        command: The program.
        folder: For its log.
        address: Where it is to listen. Default: a free port of loopback.
        environment: Variables to add.
    """
    address = address or f"127.0.0.1:{free_port()}"
    log = folder / "backend.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, "--addr", address],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
        )
    try:
        yield Running(process, address, log)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def llama_server(
    model: Path, folder: Path, *arguments: str, port: int = 0, **environment: str
) -> Iterator[str]:
    """Run a real server with OpenAI's API for as long as the context is open, and give its URL.

    Args:
        model: Its model.
        folder: For its log.
        arguments: What else it is told.
        port: Where it listens. Default: a free one.
        environment: Variables to add.
    """
    port = port or free_port()
    log = folder / "llama_server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*LLAMA_SERVER, "--port", str(port), "--model", str(model), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **environment},
        )
    try:
        wait_until(lambda: "listening on" in log.read_text(), "the server listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def deaf_port() -> Iterator[int]:
    """Hold a port on which nobody listens, nor can, for as long as the context is open."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def free_port() -> int:
    """Return a port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return once a condition holds; fail the test when it does not come true."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"still waiting for: {what}"
        time.sleep(0.005)

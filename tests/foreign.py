"""Backends that are none of ours, made as LocalAI makes its own: the protocol's file, a script, a `run.sh`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from backends.processes import free_port
from served import wait_until

CHECKOUT = Path(__file__).parents[1]
PROTOCOL = CHECKOUT / "proto" / "localplane" / "localai" / "backend.proto"
SCRIPT = Path(__file__).parent / "backends" / "localai_style.py"
LATER_METHODS = ("Status", "Free", "GetMetrics", "Detokenize")
"""What backends made from an old copy of the protocol do not have."""

RUN = """#!/bin/sh
# As LocalAI's: the script's folder, its interpreter, and all arguments handed on.
exec '{python}' "$(dirname "$0")/backend.py" "$@"
"""
WRAPPED_RUN = """#!/bin/sh
# Not as LocalAI's: the shell stays, and waits.
'{python}' "$(dirname "$0")/backend.py" "$@"
echo "the wrapped program ended with $?"
"""


def write_program(folder: Path, *, is_old: bool = False, run: str = RUN) -> Path:
    """Write a backend into a folder and return its `run.sh`.

    Args:
        folder: Made for it.
        is_old: Whether the backend knows an old protocol only.
        run: Text of `run.sh`.
    """
    folder.mkdir(parents=True)
    text = PROTOCOL.read_text()
    if is_old:
        for method in LATER_METHODS:
            text, count = re.subn(rf"rpc {method}\(.*;", "", text)
            assert count == 1, method
    (folder / "backend.proto").write_text(text)
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--python_out=."]
    subprocess.run([*command, "--grpc_python_out=.", "backend.proto"], cwd=folder, check=True)
    shutil.copy(SCRIPT, folder / "backend.py")
    path = folder / "run.sh"
    path.write_text(run.format(python=sys.executable))
    path.chmod(0o755)
    return path


def install(root: Path, name: str, program: Path, metadata: Any = None) -> Path:
    """Copy a program into a backends folder, with what an installation writes; return its folder."""
    folder = root / name
    shutil.copytree(program.parent, folder)
    if metadata is not None:
        (folder / "metadata.json").write_text(json.dumps(metadata))
    return folder


@dataclass(slots=True)
class ExternalProcess:
    """A server that speaks the backend protocol and that the service did not start."""

    run: Path
    """Its program."""
    log: Path
    """What it writes."""
    environment: dict[str, str]
    """Its environment."""
    port: int
    """Where it listens."""
    process: subprocess.Popen[bytes] | None = None
    """It, while it runs."""

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, where it listened before if it did, and return once it listens."""
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [str(self.run), "--addr", self.address],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment,
            )
        wait_until(lambda: "Server started" in self.text)

    def kill(self) -> None:
        """End it at once. It may be stopped."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def hang(self) -> None:
        """Have it do nothing any more, with its connections open."""
        self._signal(signal.SIGSTOP)
        assert self.process is not None
        stopped = psutil.Process(self.process.pid)
        # The signal is on its way to its threads still; until it is there, they answer.
        wait_until(lambda: stopped.status() == psutil.STATUS_STOPPED)

    def go_on(self) -> None:
        """Have it work again."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    @property
    def text(self) -> str:
        """What it wrote."""
        return self.log.read_text()


@contextlib.contextmanager
def external(run: Path, log: Path, **environment: str) -> Iterator[ExternalProcess]:
    """Run such a server for as long as the context is open."""
    server = ExternalProcess(run, log, {**os.environ, **environment}, free_port())
    server.start()
    try:
        yield server
    finally:
        server.kill()

"""`localplane status --watch` over a restart of the service."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from localplane_server.cli.session import INTERRUPTED, UNREACHABLE
from served import LOCALPLANE, served

PATIENCE_SECONDS = 60.0


def test_over_a_restart(tmp_path: Path, tiny_gguf: Path) -> None:
    """One object a line for each change; that the service is gone is one, and it goes on when it is back."""
    models = tmp_path / "data" / "models"
    models.mkdir(parents=True)
    shutil.copy(tiny_gguf, models / "tiny.gguf")
    text = "name: tiny\nbackend: llama\nparameters: {model: tiny.gguf}\n"
    (models / "tiny.yaml").write_text(text)
    # The port of a service that is gone may be another's by then; its socket is not.
    socket = tmp_path / "grpc.sock"
    arguments = ("--grpc-uds", str(socket))
    command = [*LOCALPLANE, "status", "--watch", "--json", "--grpc", f"unix:{socket}"]

    with served(*arguments, folder=models.parent) as service:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        service.load("tiny")
        seen = first
        while [one["state"] for one in seen["backends"]] != ["ready"]:
            seen = json.loads(process.stdout.readline())
        service.process.kill()
        while seen["ready"]:
            seen = json.loads(process.stdout.readline())
    with process, process.stdout, served(*arguments, folder=models.parent):
        again = json.loads(process.stdout.readline())
        while not again["ready"]:
            again = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        code = process.wait(PATIENCE_SECONDS)

    assert (True, []) == (first["ready"], first["backends"])
    assert seen["message"].startswith("gone: ")
    assert [] == seen["backends"]
    assert (f"unix:{socket}", None, []) == (again["grpc"], again["message"], again["backends"])
    assert INTERRUPTED == code


@pytest.mark.parametrize("command", [("status", "--watch"), ("backend", "watch")])
def test_nobody_reads(tmp_path: Path, command: tuple[str, ...]) -> None:
    """A command whose output nobody reads any more ends, though nothing changes that it could write."""
    with served(folder=tmp_path) as service:
        process = subprocess.Popen(
            [*LOCALPLANE, *command, "--json", "--grpc", service.grpc], stdout=subprocess.PIPE
        )
        with process:
            assert process.stdout is not None
            first = process.stdout.readline()
            process.stdout.close()
            code = process.wait(PATIENCE_SECONDS)

    assert first.startswith(b"{")
    assert INTERRUPTED == code


def test_nobody_there(tmp_path: Path) -> None:
    """A service that was never seen is not waited for: the address may be wrong."""
    command = [*LOCALPLANE, "status", "--watch", "--grpc", f"unix:{tmp_path / 'no.sock'}"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env={**os.environ}
    )

    assert UNREACHABLE == done.returncode
    assert "Error: " in done.stderr

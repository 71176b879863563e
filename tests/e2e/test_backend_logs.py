"""Logs of backends as users read them: over a restart of the service, and from the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from served import LOCALPLANE, Served, served

STOP_SECONDS = 5 * 2.0
"""Five times what a service without calls in flight may take to stop."""


@pytest.fixture
def folder(tmp_path: Path, tiny_gguf: Path) -> Path:
    """A data directory with a tiny model."""
    models = tmp_path / "data" / "models"
    models.mkdir(parents=True)
    shutil.copy(tiny_gguf, models / "tiny.gguf")
    (models / "tiny.yaml").write_text(
        "name: tiny\nbackend: llama\nparameters: {model: tiny.gguf}\n"
    )
    return models.parent


def records(service: Served, **query: Any) -> list[dict[str, Any]]:
    """Read the log of the model over REST."""
    response = httpx.get(
        f"http://{service.http}/api/backend-logs/tiny",
        params={"after_sequence": 0, **query},
        headers={"accept": "application/x-ndjson"},
        timeout=30,
    )
    response.raise_for_status()
    return [json.loads(line) for line in response.text.splitlines()]


def run(service: Served, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LOCALPLANE, "backend", "logs", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "LOCALPLANE_GRPC": service.grpc},
    )


def stop(service: Served) -> float:
    """Stop a service and return how long that took."""
    began = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    assert 0 == service.process.wait(60)
    return time.monotonic() - began


def test_numbers_go_on_over_a_restart(folder: Path) -> None:
    """A number means one record, whoever wrote it and whichever service reads it; a killed service changes nothing."""
    with served(folder=folder) as service:
        service.load("tiny")
        before = records(service)
        stop(service)
    with served(folder=folder) as service:
        service.load("tiny")
        backend = service.load("tiny")
        service.process.kill()
        service.process.wait()
    with served(folder=folder) as service:
        service.load("tiny")
        after = records(service)

    numbers = [record["sequence"] for record in after]
    assert list(range(1, len(after) + 1)) == numbers
    assert before == after[: len(before)]
    assert 3 == sum(record["kind"] == "started" for record in after)
    assert backend.pid in {record["pid"] for record in after}
    assert {"started", "output", "ended"} == {record["kind"] for record in after}


def test_readers_do_not_hold_up_a_stop(folder: Path) -> None:
    """Who follows a log is let go at once when the service stops, with everything that was written."""
    with served(folder=folder) as service:
        service.load("tiny")
        reader = subprocess.Popen(
            [*LOCALPLANE, "backend", "logs", "tiny", "-f"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LOCALPLANE_GRPC": service.grpc},
        )
        assert reader.stdout is not None
        with (
            reader.stdout,
            httpx.stream(
                "GET",
                f"http://{service.http}/api/backend-logs/tiny",
                params={"follow": "true"},
                timeout=30,
            ) as response,
        ):
            events = response.iter_lines()
            assert next(events).startswith("id: ")
            assert reader.stdout.readline()

            assert stop(service) < STOP_SECONDS
            assert [] == [line for line in events if '"error"' in line]
        assert 0 == reader.wait(60)


def test_settings(folder: Path) -> None:
    """The size of a log is what the settings say; one that cannot be is refused at the start."""
    done = subprocess.run(
        [*LOCALPLANE, "serve", "--data-dir", str(folder), "--backend-log-size", "1K"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert 0 != done.returncode
    assert "--backend-log-size" in done.stderr

    log = folder / "logs" / "tiny.log"
    log.parent.mkdir()
    for number in range(1, 5):
        log.with_name(f"tiny.log.{number}").write_text(f"{9 - number} t 1 out x\n")
    log.write_text("9 2026-01-31T12:00:00.000Z 1 out " + "x" * 65_000 + "\n")
    options = ("--backend-log-size", "64K", "--backend-log-files", "2")
    with served(*options, folder=folder) as service:
        service.load("tiny")
        gone, first = records(service)[:2]

    assert ["tiny.log", "tiny.log.1"] == sorted(file.name for file in log.parent.iterdir())
    assert ("gone", 8, 9) == (gone["kind"], gone["sequence"], first["sequence"])


def test_command(folder: Path) -> None:
    """Lines for people, records for programs, and the usual exit codes."""
    with served(folder=folder) as service:
        service.load("tiny")
        service.post("/backend/shutdown", model="tiny").raise_for_status()
        expected = records(service)
        lines = run(service, "tiny", "-n", "1000").stdout.splitlines()
        timed = run(service, "tiny", "-n", "1", "--times").stdout
        as_json = run(service, "tiny", "--after", "0", "--json").stdout
        unknown = run(service, "nobody")
        both = run(service, "tiny", "-n", "1", "--after", "1")

    marks = [line for line in lines if line.startswith("=== ")]
    said = [record["text"] for record in expected if record["kind"] == "output"]
    assert ("started" in marks[0], "ended" in marks[-1]) == (True, True)
    assert said[-1] in lines
    assert expected == [json.loads(line) for line in as_json.splitlines()]
    assert timed.startswith("=== 20")
    assert 5 == unknown.returncode
    assert "not found" in unknown.stderr
    assert 2 == both.returncode

"""Installing what a hub calls unsafe, with a service that asks it and one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import file_server
from file_server import FileServer
from served import Served, served, wait_until

ARGUMENTS = ("--allow-private-hosts", "127.0.0.1", "--galleries", "[]")
SCAN = "/api/models/owner/repo/scan"
FILE = "/owner/repo/resolve/main/m.gguf"


@pytest.fixture
def hub() -> Iterator[FileServer]:
    """A hub with a repository in which it found an unsafe file."""
    with file_server.serving() as server:
        server.put(SCAN, b'{"hasUnsafeFile": true}', kind="application/json")
        server.put(FILE, b"GGUF weights")
        yield server


def install(service: Served) -> dict[str, Any]:
    """Install a model of the repository, and return the job."""
    reference = service.post(
        "/models/apply",
        config_file={"name": "m", "backend": "llama", "parameters": {"model": "m.gguf"}},
        files=[{"filename": "m.gguf", "uri": "huggingface://owner/repo/m.gguf"}],
    )
    path = f"/models/jobs/{reference.raise_for_status().json()['uuid']}"
    wait_until(lambda: bool(service.get(path).json()["processed"]))
    job: dict[str, Any] = service.get(path).json()
    return job


def test_refused(hub: FileServer, tmp_path: Path) -> None:
    """The job fails at once with a reason of its own, nothing was fetched, and the models folder is as it was."""
    folder = tmp_path / "data"
    with served(*ARGUMENTS, folder=folder, HF_ENDPOINT=hub.url) as service:
        job = install(service)

    assert ("failed", "UNSAFE_FILES") == (job["state"], job["error_reason"])
    assert "unsafe files found in owner/repo" in job["error"]
    assert [SCAN] == [one.path for one in hub.asked]
    assert [] == list((folder / "models").iterdir())


def test_switched_off(hub: FileServer, tmp_path: Path) -> None:
    """LocalAI's variable has the service install without asking."""
    folder = tmp_path / "data"
    environment = {"HF_ENDPOINT": hub.url, "LOCALAI_DISABLE_PREDOWNLOAD_SCAN": "true"}
    with served(*ARGUMENTS, folder=folder, **environment) as service:
        job = install(service)

    assert "completed" == job["state"], job
    assert not [one for one in hub.asked if one.path == SCAN]
    assert b"GGUF weights" == (folder / "models" / "m.gguf").read_bytes()

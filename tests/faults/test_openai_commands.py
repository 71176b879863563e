"""Servers that backends start: whatever happens, they end, with all that they started."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from backends.processes import COMMAND
from served import Served, alive, served, wait_until

pytest.importorskip("xllamacpp", reason="the extra llama is not installed")

pytestmark = pytest.mark.faults


@pytest.fixture
def service(tmp_path: Path, tiny_gguf: Path) -> Iterator[Served]:
    """A service with a model whose server is a command that starts a process of its own."""
    models = tmp_path / "data" / "models"
    models.mkdir(parents=True)
    shutil.copy(tiny_gguf, models / "tiny.gguf")
    (models / "near.yaml").write_text("name: near\nbackend: near\nparameters: {model: tiny.gguf}")
    (models / "dies.yaml").write_text("name: dies\nbackend: dies\nparameters: {model: tiny.gguf}")
    (models / "stays.yaml").write_text("name: stays\nbackend: stays\n")
    file = tmp_path / "settings.yaml"
    registered = {
        "near": {"command": [*COMMAND, "--child"]},
        "dies": {"command": ["sh", "-c", "echo no device >&2; sleep 3600 & exit 9", "{port}"]},
        "stays": {"command": ["sh", "-c", "trap '' TERM; sleep 3600 & sleep 3600", "{port}"]},
    }
    file.write_text(json.dumps({"openai_backends": registered}))
    with served("--config", str(file), folder=tmp_path / "data") as service:
        yield service


def tree_of(service: Served, model: str) -> list[psutil.Process]:
    """Load a model and return its backend, the command and what that started."""
    backend = service.load(model)
    tree = [backend, *backend.children(recursive=True)]
    assert 3 == len(tree)
    return tree


def test_stopped(service: Served) -> None:
    """When a stop has answered, nothing of the tree is left."""
    tree = tree_of(service, "near")

    answer = service.post("/backend/shutdown", model="near")

    assert 200 == answer.status_code
    assert [] == alive(tree)


def test_backend_killed(service: Served) -> None:
    """A backend that is killed takes its command along."""
    tree = tree_of(service, "near")

    tree[0].kill()

    wait_until(lambda: not alive(tree))


def test_service_killed(service: Served) -> None:
    """So does the service."""
    tree = tree_of(service, "near")

    service.process.kill()
    service.process.wait()

    wait_until(lambda: not alive(tree))


def test_command_killed(service: Served) -> None:
    """A command that is killed is noticed without any call, told with its last words, and started again."""
    tree = tree_of(service, "near")

    tree[1].send_signal(signal.SIGKILL)

    wait_until(lambda: service.get("/backend/monitor", model="near").status_code == 500)
    wait_until(lambda: not alive(tree))
    wait_until(lambda: "log" in service.get("/backend/monitor", model="near").text)
    error = service.get("/backend/monitor", model="near").json()["error"]
    assert "BACKEND_FAILED" == error["reason"]
    assert "the server ended with signal SIGKILL" in error["message"]
    assert "listening on" in error["message"]
    again = service.post("/v1/completions", model="near", prompt="x", max_tokens=2)
    assert 200 == again.status_code


def test_command_fails(service: Served) -> None:
    """A command that does not come up fails the load with its exit code and its last words; nothing is left of it."""
    answer = service.post("/backend/load", model="dies")

    error = answer.json()["error"]
    assert (500, "LOAD_FAILED") == (answer.status_code, error["reason"])
    assert "the server ended with exit code 9" in error["message"]
    assert "no device" in error["message"]
    assert [] == [one for one in service.tree if "sleep" in one.name()]


def test_stopped_while_it_starts(service: Served) -> None:
    """A command that never gets ready, and does not heed SIGTERM, can be stopped all the same."""
    service.post("/backend/load", model="stays", wait=False)
    wait_until(lambda: 2 == sum("sleep" in one.name() for one in service.tree))
    tree = [one for one in service.tree if one.name() in ("sh", "sleep")]

    answer = service.post("/backend/shutdown", model="stays")

    assert 200 == answer.status_code
    assert [] == alive(tree)

"""Whatever dies, no process is left behind, and the service goes on or comes back."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from served import Served, alive, served, wait_until

pytestmark = pytest.mark.faults

MODELS = ("one.gguf", "two.gguf", "three.gguf")


@pytest.fixture
def folder(tmp_path: Path, tiny_gguf: Path) -> Path:
    """A data directory with three models."""
    models = tmp_path / "data" / "models"
    models.mkdir(parents=True)
    for name in MODELS:
        shutil.copy(tiny_gguf, models / name)
    return tmp_path / "data"


@pytest.fixture
def service(folder: Path) -> Iterator[Served]:
    """A service with three loaded models."""
    with served(folder=folder) as service:
        for model in MODELS:
            service.load(model)
        yield service


def warden_of(backend: psutil.Process) -> psutil.Process:
    warden = backend.parent()
    assert warden is not None
    return warden


def states(service: Served) -> dict[str, str]:
    backends = service.get("/api/backends").json()["backends"]
    return {one["model"]: one["state"] for one in backends}


def test_server_killed(service: Served, folder: Path) -> None:
    """Nothing of the trees is left, and a new server takes the same directory."""
    tree = service.tree
    assert 1 + 1 + 2 * len(MODELS) <= len(tree)

    service.process.kill()
    service.process.wait()
    wait_until(lambda: not alive(tree))

    with served(folder=folder) as again:
        again.load(MODELS[0])


def test_keeper_killed(service: Served) -> None:
    """Its backends are gone and marked failed; with a new keeper the service is ready and loads again."""
    backends = [one for one in service.tree[1:] if one.pid != service.keeper.pid]
    keeper = service.keeper
    keeper.kill()
    wait_until(lambda: not alive([keeper, *backends]))
    wait_until(lambda: service.get("/readyz").status_code == 200)

    assert dict.fromkeys(MODELS, "failed") == states(service)
    assert service.keeper.pid != keeper.pid
    service.load(MODELS[0])


def test_warden_killed(service: Served) -> None:
    """The backend goes with its warden and is marked failed; the others serve on."""
    victim = service.load(MODELS[0])
    others = {model: service.load(model).pid for model in MODELS[1:]}
    warden = warden_of(victim)
    warden.kill()
    wait_until(lambda: not alive([warden, victim]))
    wait_until(lambda: states(service)[MODELS[0]] == "failed")

    assert others == {model: service.load(model).pid for model in MODELS[1:]}
    assert "failed" not in [states(service)[model] for model in MODELS[1:]]
    service.load(MODELS[0])


def test_backend_killed(service: Served) -> None:
    """A backend that is killed is seen at once, says how it ended, and loads again."""
    victim = service.load(MODELS[0])
    victim.kill()
    wait_until(lambda: states(service)[MODELS[0]] == "failed")
    answer = service.get("/backend/monitor", model=MODELS[0])

    assert (500, "BACKEND_FAILED") == (answer.status_code, answer.json()["error"]["reason"])
    assert "signal SIGKILL" in answer.json()["error"]["message"]
    assert service.load(MODELS[0]).pid != victim.pid


def test_server_and_keeper_killed_together(service: Served, folder: Path) -> None:
    """What both leave is ended at the next start at the latest, and named in the log."""
    tree = service.tree
    for one in (service.keeper, psutil.Process(service.process.pid)):
        one.suspend()
    service.keeper.kill()
    service.process.kill()
    service.process.wait()

    with served(folder=folder) as again:
        wait_until(lambda: not alive(tree))
        again.load(MODELS[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end(service: Served, number: signal.Signals) -> None:
    """Asked to end, it ends everything and exits well."""
    tree = service.tree
    service.process.send_signal(number)

    assert 0 == service.process.wait(30)
    wait_until(lambda: not alive(tree))

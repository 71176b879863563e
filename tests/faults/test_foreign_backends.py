"""Backends that are none of ours, at their worst: wrapped, slow, noisy, killed, hanging, and back again."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from foreign import WRAPPED_RUN, ExternalProcess, external, install, write_program
from served import Served, alive, served, wait_until

pytestmark = pytest.mark.faults

SLOW = "options: ['pieces:1000', 'piece_seconds:0.02']"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory with nothing in it but folders."""
    folder = tmp_path / "data"
    (folder / "models").mkdir(parents=True)
    return folder


@pytest.fixture
def far(foreign_program: Path, tmp_path: Path) -> Iterator[ExternalProcess]:
    """A server elsewhere, which takes several calls at once."""
    with external(foreign_program, tmp_path / "far.log", PYTHON_GRPC_MAX_WORKERS="8") as process:
        yield process


@pytest.fixture
def service(folder: Path, far: ExternalProcess) -> Iterator[Served]:
    """A service with two models on that server."""
    for name in ("one", "two"):
        configure(folder, name, "far", SLOW)
    with served("--external-grpc-backends", f"far:{far.address}", folder=folder) as service:
        yield service


def configure(folder: Path, name: str, backend: str, more: str = "") -> None:
    text = f"name: {name}\nbackend: {backend}\nknown_usecases: [none]\n{more}\n"
    (folder / "models" / f"{name}.yaml").write_text(text)


def complete(service: Served, model: str, prompt: str = "hello") -> httpx.Response:
    return service.post("/v1/completions", model=model, prompt=prompt)


def error_of(answer: httpx.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["reason"], error["message"]


def state(service: Served, model: str) -> str | None:
    backends = service.get("/api/backends").json()["backends"]
    return next((one["state"] for one in backends if one["model"] == model), None)


class Stream:
    """A streamed answer that is read in the background."""

    def __init__(self, service: Served, model: str) -> None:
        self.lines: list[str] = []
        self._url = f"http://{service.http}/v1/completions"
        self._body = {"model": model, "prompt": "x", "stream": True}
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        wait_until(lambda: len(self.lines) > 1)

    def _read(self) -> None:
        with httpx.stream("POST", self._url, json=self._body, timeout=60) as answer:
            self.lines += (line for line in answer.iter_lines() if line)

    def wait(self) -> None:
        """Return once the stream has ended."""
        self._thread.join(30)
        assert not self._thread.is_alive()

    def error(self) -> dict[str, Any]:
        """Return the error that the stream ends with."""
        self.wait()
        error: dict[str, Any] = json.loads(self.lines[-1].removeprefix("data: "))["error"]
        return error


class TestPrograms:
    def test_wrapper_that_stays(self, folder: Path, tmp_path: Path) -> None:
        """A shell that starts Python that starts a worker: after the stop nothing of them is left."""
        wrapped = write_program(tmp_path / "wrapped", run=WRAPPED_RUN)
        install(folder / "backends", "wrapped", wrapped)
        configure(folder, "m", "wrapped")
        with served(folder=folder, FOREIGN_WORKER="1") as service:
            shell = service.load("m")
            tree = [shell, *shell.children(recursive=True)]
            is_shell = "run.sh" in shell.cmdline()[1]
            answer = service.post("/backend/shutdown", model="m").json()
            left = alive(tree)
            again = service.load("m")

            assert is_shell
            assert 3 == len(tree)
            assert [] == left
            assert answer["freed_bytes"] > 0
            assert again.pid != shell.pid

    def test_wrapped_program_dies(self, folder: Path, tmp_path: Path) -> None:
        """When the Python in the middle is killed, the shell and the worker go too, and the error has the log."""
        wrapped = write_program(tmp_path / "wrapped", run=WRAPPED_RUN)
        install(folder / "backends", "wrapped", wrapped)
        configure(folder, "m", "wrapped")
        with served(folder=folder, FOREIGN_WORKER="1") as service:
            shell = service.load("m")
            tree = [shell, *shell.children(recursive=True)]
            shell.children()[0].kill()
            wait_until(lambda: state(service, "m") == "failed")
            wait_until(lambda: not alive(tree))
            wait_until(lambda: "ended with 137" in service.get("/api/backends").text)

    def test_late_and_noisy(self, folder: Path, foreign_program: Path) -> None:
        """One that imports for seconds, and prints more than a log holds, is waited for."""
        install(folder / "backends", "late", foreign_program)
        configure(folder, "m", "late")
        environment = {"FOREIGN_IMPORT_SECONDS": "3", "FOREIGN_NOISE": "100000"}
        with served(folder=folder, **environment) as service:
            began = time.monotonic()
            service.load("m")
            took = time.monotonic() - began
            answer = complete(service, "m")

        logs = list((folder / "logs").iterdir())
        assert took > 3
        assert "hello" == answer.json()["choices"][0]["text"]
        assert sum(one.stat().st_size for one in logs) < 100000 * 200

    @pytest.mark.parametrize(
        ("run", "cause"),
        [
            ("#!/no/such/interpreter\n", "cannot run run.sh: No such file or directory"),
            ("echo no first line\n", "cannot run run.sh: Exec format error"),
            ("#!/bin/sh\necho broken on purpose >&2\nexit 3\n", "broken on purpose"),
            ("#!/bin/sh\necho reading $PWD/weights\nexit 3\n", "log: reading weights"),
        ],
    )
    def test_program_that_does_not_start(self, folder: Path, run: str, cause: str) -> None:
        """Why is told, and not where on this machine."""
        path = folder / "backends" / "bad" / "run.sh"
        path.parent.mkdir(parents=True)
        path.write_text(run)
        path.chmod(0o755)
        configure(folder, "m", "bad")
        with served(folder=folder) as service:
            status, reason, message = error_of(service.post("/backend/load", model="m"))

        assert (500, "LOAD_FAILED") == (status, reason)
        assert cause in message
        assert str(folder) not in message

    def test_environment(self, folder: Path, foreign_program: Path) -> None:
        """It gets the service's environment and LocalAI's caches, and none of the service's secrets."""
        install(folder / "backends", "asked", foreign_program)
        configure(folder, "m", "asked")
        secrets = {"LOCALPLANE_EXTERNAL_GRPC_TOKEN": "secret", "LOCALAI_GRPC_AUTH_TOKEN": "secret"}
        with served(folder=folder, TRANSFORMERS_CACHE="/mine", **secrets) as service:
            told = json.loads(complete(service, "m", "describe").json()["choices"][0]["text"])

        assert {
            "HF_HOME": str(folder / "models"),
            "LOCALPLANE_API_KEY": None,
            "LOCALPLANE_EXTERNAL_GRPC_TOKEN": None,
            "TRANSFORMERS_CACHE": "/mine",
        } == told["environment"]
        assert str(folder / "backends" / "asked") == told["cwd"]


class TestServers:
    def test_killed_during_a_call(self, service: Served, far: ExternalProcess) -> None:
        """The call ends with that, the monitor says it, and when the server is back the next call has the model."""
        stream = Stream(service, "one")
        far.kill()
        cut = stream.error()
        wait_until(lambda: state(service, "one") == "failed")
        dead = error_of(service.get("/backend/monitor", model="one"))
        refused = error_of(complete(service, "one"))
        far.start()
        wait_until(lambda: complete(service, "one").status_code == 200)
        seen = service.get("/backend/monitor", model="one").json()

        gone = "the server of backend far is gone: the connection broke"
        assert ("BACKEND_GONE", f"{gone} during the call") == (cut["reason"], cut["message"])
        assert (500, "BACKEND_FAILED") == dead[:2]
        assert gone in dead[2]
        assert "far cannot be reached: connection refused" in refused[2]
        assert "loading one" in far.text
        assert seen["restarts"] >= 1

    def test_killed_between_calls(self, service: Served, far: ExternalProcess) -> None:
        """A server that came back without its model gets it with the next call."""
        complete(service, "one").raise_for_status()
        far.kill()
        far.start()
        wait_until(lambda: state(service, "one") == "failed")
        answer = complete(service, "one")

        assert "hello" == answer.json()["choices"][0]["text"]

    def test_hangs(self, service: Served, far: ExternalProcess) -> None:
        """A server that hangs holds up nobody but its callers; when it goes on, so do they."""
        complete(service, "one").raise_for_status()
        far.hang()
        began = time.monotonic()
        hanging = error_of(service.get("/backend/monitor", model="one"))
        took = time.monotonic() - began
        ready = service.get("/readyz").status_code
        far.go_on()
        answer = complete(service, "one")
        seen = service.get("/backend/monitor", model="one")

        assert (500, "BACKEND_STATUS_FAILED") == hanging[:2]
        assert took < 5
        assert 200 == ready
        assert "hello" == answer.json()["choices"][0]["text"]
        assert 200 == seen.status_code
        assert 1 == far.text.count("loading one")

    def test_one_call_at_a_time(self, folder: Path, foreign_program: Path, tmp_path: Path) -> None:
        """A server that does not even report while it works is busy, and not broken."""
        configure(folder, "m", "single", "options: ['pieces:40', 'piece_seconds:0.1']")
        with (
            external(foreign_program, tmp_path / "single.log") as single,
            served(
                "--external-grpc-backends", f"single:{single.address}", folder=folder
            ) as service,
        ):
            stream = Stream(service, "m")
            seen = service.get("/backend/monitor", model="m")
            stream.wait()
            after = service.get("/backend/monitor", model="m").json()

        assert (200, 1, 1) == (seen.status_code, seen.json()["state"], seen.json()["in_flight"])
        assert "in time" in seen.json()["unknown"]["memory"]
        assert 2 == after["state"]

    def test_stop_while_it_hangs(self, service: Served, far: ExternalProcess) -> None:
        """The stop does not wait for it, and calls in flight are cut."""
        stream = Stream(service, "one")
        far.hang()
        answer = service.post("/backend/shutdown", model="one", force=True).json()

        assert ("model stopped", 1, None) == (
            answer["message"],
            answer["cut_calls"],
            answer["freed_bytes"],
        )
        assert "BACKEND_GONE" == stream.error()["reason"]

    def test_the_service_ends(self, service: Served, far: ExternalProcess) -> None:
        """The model is freed; the server, which is not ours, goes on."""
        complete(service, "one").raise_for_status()
        service.process.terminate()

        assert 0 == service.process.wait(30)
        assert "freed one" in far.text
        assert far.process is not None
        assert far.process.poll() is None

    def test_nothing_grows(self, service: Served, far: ExternalProcess) -> None:
        """Servers that go and come back many times cost no files and no threads."""
        process = psutil.Process(service.process.pid)

        def cycle() -> None:
            complete(service, "one").raise_for_status()
            service.post("/backend/shutdown", model="one").raise_for_status()

        for _ in range(5):
            cycle()
        before = process.num_fds(), process.num_threads()
        for _ in range(30):
            cycle()
        wait_until(lambda: process.num_fds() <= before[0] + 2)

        assert process.num_threads() <= before[1] + 2
        assert 35 == len(re.findall("freed one", far.text))

    def test_nothing_is_started(self, service: Served, folder: Path) -> None:
        """For a server elsewhere there is no process here, and no log."""
        before = len(service.tree)
        complete(service, "one").raise_for_status()

        assert before == len(service.tree)
        assert not list(folder.glob("logs/*"))

"""Backends that are stuck, broken, stubborn or wanted by many: others are served, and limits hold."""

from __future__ import annotations

import contextlib
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

import httpx
import psutil
import pytest

from served import PATIENCE_SECONDS, Served, alive, served, wait_until

pytestmark = pytest.mark.faults

FAKE_BACKEND = Path(__file__).parents[1] / "backends" / "fake_backend.py"
TIMES = 5
"""How many times as long as promised things may take here."""


@pytest.fixture
def folder(tmp_path: Path, tiny_gguf: Path) -> Path:
    """A data directory with a backend that does as it is told, and the file of a model that works."""
    folder = tmp_path / "data"
    (folder / "models").mkdir(parents=True)
    shutil.copy(tiny_gguf, folder / "models" / "tiny.gguf")
    run = folder / "backends" / "fake" / "run.sh"
    run.parent.mkdir(parents=True)
    run.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{FAKE_BACKEND}' \"$@\"\n")
    run.chmod(0o755)
    return folder


def configure(folder: Path, name: str, *options: str) -> None:
    text = f"name: {name}\nbackend: fake\nknown_usecases: [none]\noptions: [{', '.join(options)}]\n"
    (folder / "models" / f"{name}.yaml").write_text(text)


def complete(service: Served, model: str) -> httpx.Response:
    return service.post("/v1/completions", model=model, prompt="hello")


def stop(service: Served, model: str, **options: float) -> httpx.Response:
    return service.post("/backend/shutdown", model=model, **options)


def reason(answer: httpx.Response) -> str | None:
    return answer.json()["error"]["reason"] if answer.is_error else None


def state(service: Served, model: str) -> str | None:
    backends = service.get("/api/backends").json()["backends"]
    return next((one["state"] for one in backends if one["model"] == model), None)


def in_flight(service: Served, model: str) -> int:
    backends = service.get("/api/backends").json()["backends"]
    return sum(one["in_flight"] for one in backends if one["model"] == model)


def metric(service: Served, name: str, **labels: str) -> float:
    for line in service.get("/metrics").text.splitlines():
        if line.startswith(name) and all(
            f'{key}="{value}"' in line for key, value in labels.items()
        ):
            return float(line.rpartition(" ")[2])
    return 0.0


def wardens(service: Served) -> list[psutil.Process]:
    """Return the wardens: one for each backend that there is."""
    return service.keeper.children()


class Background:
    """Threads for calls that the test does not wait for."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(32)
        self.ended = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.pool.shutdown()

    def again_and_again(
        self, call: Callable[[], httpx.Response]
    ) -> Future[list[tuple[float, httpx.Response]]]:
        """Call without a pause until the end; return how long each took, and its answer."""

        def work() -> list[tuple[float, httpx.Response]]:
            answers = []
            while not self.ended.is_set():
                began = time.monotonic()
                answer = call()
                answers.append((time.monotonic() - began, answer))
            return answers

        return self.pool.submit(work)


@pytest.fixture
def background() -> Iterator[Background]:
    with Background() as background:
        yield background


def test_stubborn(folder: Path) -> None:
    """A backend that ignores SIGTERM and answers all the same is gone a second later, and the model loads again."""
    configure(folder, "stubborn", "ignore_sigterm")
    with served(folder=folder) as service:
        backend = service.load("stubborn")
        began = time.monotonic()
        answer = stop(service, "stubborn", grace_seconds=0.0)

        assert answer.status_code == 200
        assert time.monotonic() - began < TIMES * 1.0
        assert [] == alive([backend])
        assert state(service, "stubborn") is None
        assert service.load("stubborn").pid != backend.pid


def test_stubborn_that_was_given_time(folder: Path, background: Background) -> None:
    """Force counts for a backend that has begun to end in its own time, and both who asked get their answer."""
    configure(folder, "stubborn", "ignore_sigterm")
    with served(folder=folder) as service:
        backend = service.load("stubborn")
        patient = background.pool.submit(stop, service, "stubborn", grace_seconds=30.0)
        wait_until(lambda: state(service, "stubborn") == "stopping")
        began = time.monotonic()
        answer = stop(service, "stubborn", force=True)

        assert answer.status_code == 200
        assert time.monotonic() - began < TIMES * 1.0
        assert [] == alive([backend])
        assert answer.json() == patient.result().json()


def test_stubborn_that_loads(folder: Path, background: Background) -> None:
    """A backend that ignores SIGTERM while it loads is gone as soon."""
    configure(folder, "stubborn", "ignore_sigterm", "load_seconds:600")
    with served(folder=folder) as service:
        load = background.pool.submit(service.post, "/backend/load", model="stubborn")
        wait_until(lambda: state(service, "stubborn") == "loading")
        [warden] = wardens(service)
        processes = warden.children(recursive=True)
        began = time.monotonic()
        answer = stop(service, "stubborn", grace_seconds=0.0)

        assert answer.status_code == 200
        assert time.monotonic() - began < TIMES * 1.0
        assert [] == alive(processes)
        assert load.result().status_code == 503


def test_stuck_with_clients(folder: Path, background: Background) -> None:
    """A backend stuck in its calls is shut down while clients hammer it; nobody else waits, and they are told."""
    configure(folder, "stuck", "hang:Predict")
    configure(folder, "other", "load_seconds:0.5")
    with served(folder=folder) as service:
        backend = service.load("stuck")
        began = time.monotonic()
        service.load("other")
        alone = time.monotonic() - began
        stop(service, "other")
        stuck = [background.pool.submit(complete, service, "stuck") for _ in range(8)]
        wait_until(lambda: in_flight(service, "stuck") == len(stuck))
        began = time.monotonic()
        stopping = background.pool.submit(stop, service, "stuck", grace_seconds=1.0)
        service.load("other")
        loaded = time.monotonic() - began
        stopped = stopping.result()
        seconds = time.monotonic() - began

        assert stopped.status_code == 200
        assert seconds < 1.0 + TIMES * 2.0
        assert loaded < alone + TIMES * 0.5
        assert {"BACKEND_GONE"} == {reason(call.result()) for call in stuck}
        assert 8 == stopped.json()["cut_calls"]
        assert [] == alive([backend])


def test_admission_closes_first(folder: Path, background: Background) -> None:
    """While a stop waits for the calls in flight, new ones get UNAVAILABLE and a time."""
    configure(folder, "slow", "pieces:20", "piece_seconds:0.1")
    with served(folder=folder) as service:
        service.load("slow")
        calling = background.pool.submit(complete, service, "slow")
        wait_until(lambda: state(service, "slow") == "busy")
        stopping = background.pool.submit(stop, service, "slow")
        wait_until(lambda: state(service, "slow") == "stopping")
        refused = complete(service, "slow")

        assert (503, "DRAINING") == (refused.status_code, reason(refused))
        assert "retry-after" in refused.headers
        assert 0 == stopping.result().json()["cut_calls"]
        assert 200 == calling.result().status_code


def test_good_model_after_a_corrupt_one(folder: Path, background: Background) -> None:
    """The good one serves, and no process and no port of the bad one is left."""
    (folder / "models" / "corrupt.gguf").write_bytes(b"GGUF" + b"\xff" * 4096)
    with served(folder=folder) as service:
        bad = background.pool.submit(complete, service, "corrupt.gguf")
        good = complete(service, "tiny.gguf")

        assert 200 == good.status_code
        assert "LOAD_FAILED" == reason(bad.result())
        assert 1 == len(wardens(service))
        listening = [
            connection.laddr.port
            for one in service.keeper.children(recursive=True)
            for connection in one.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert 1 == len(listening)


def test_broken_model_asked_for_again_and_again(folder: Path, background: Background) -> None:
    """Starts are few, refusals tell a time, nothing grows, and another model is served as ever."""
    configure(folder, "broken", "'load_error:no such weights'")
    configure(folder, "good")
    with served(folder=folder) as service:
        complete(service, "good")
        complete(service, "broken")
        process = psutil.Process(service.process.pid)
        before = process.num_fds(), len(process.children(recursive=True))
        good = background.again_and_again(lambda: complete(service, "good"))
        refusals = []
        began = time.monotonic()
        while time.monotonic() - began < 8.0:
            refusals.append(complete(service, "broken"))
            time.sleep(0.1)  # the pace of the clients, not a wait for anything
        background.ended.set()
        served_meanwhile = good.result()
        wait_until(lambda: state(service, "broken") == "failed")
        wait_until(lambda: len(process.children(recursive=True)) <= before[1])
        after = process.num_fds()
        starts = metric(service, "localplane_backend_loads_total", model="broken", outcome="error")

    # At once, then after 1, 2 and 4 s.
    assert 3 <= starts <= 6
    told = [one for one in refusals if reason(one) == "LOAD_COOLDOWN"]
    assert len(told) > len(refusals) / 2
    assert all(int(one.headers["retry-after"]) >= 1 for one in told)
    # Connections of clients come and go.
    assert after <= before[0] + 10
    assert all(answer.status_code == 200 for _, answer in served_meanwhile)
    assert statistics.median(seconds for seconds, _ in served_meanwhile) < TIMES * 0.1


def test_idle_limit_and_a_silent_stream(folder: Path) -> None:
    """A stream that is silent for longer than the limit keeps its backend; its end begins the count."""
    configure(folder, "silent", "pieces:3", "piece_seconds:2")
    with served("--watchdog-idle-timeout", "1s", folder=folder) as service:
        url = f"http://{service.http}/v1/completions"
        body = {"model": "silent", "prompt": "x", "stream": True}
        with httpx.stream("POST", url, json=body, timeout=60) as answer:
            lines = [line for line in answer.iter_lines() if line]
        ended = time.monotonic()
        wait_until(lambda: state(service, "silent") is None)
        seconds = time.monotonic() - ended

        assert "[DONE]" in lines[-1]
        assert 3 == sum('"text":"' in line and '"text":""' not in line for line in lines)
        assert 0.9 < seconds < 1.0 + TIMES * 1.0
        assert 1 == metric(service, "localplane_backend_stops_total", model="silent", cause="idle")


def test_busy_limit(folder: Path) -> None:
    """A backend that works on and on is stopped, its call is told why, and the next call gets a new one."""
    configure(folder, "stuck", "hang:Embedding")
    with served("--watchdog-busy-timeout", "1s", folder=folder) as service:
        backend = service.load("stuck")
        began = time.monotonic()
        answer = service.post("/v1/embeddings", model="stuck", input="x")
        seconds = time.monotonic() - began

        assert (503, "BACKEND_GONE") == (answer.status_code, reason(answer))
        assert "busy limit" in answer.json()["error"]["message"]
        assert 0.9 < seconds < 1.0 + TIMES * 1.0
        wait_until(lambda: not alive([backend]))
        assert 200 == complete(service, "stuck").status_code


def test_figures_while_all_work(folder: Path, background: Background) -> None:
    """With all backends busy, metrics and probes answer quickly, every time."""
    names = [f"busy-{number}" for number in range(4)]
    for name in names:
        configure(folder, name, "pieces:100", "piece_seconds:0.01")
    with served(folder=folder) as service:
        for name in names:
            service.load(name)
        calls = [
            background.again_and_again(lambda name=name: complete(service, name))  # type: ignore[misc]
            for name in names
            for _ in range(2)
        ]
        wait_until(lambda: all(state(service, name) == "busy" for name in names))
        taken = []
        with httpx.Client(base_url=f"http://{service.http}", timeout=PATIENCE_SECONDS) as client:
            for _ in range(30):
                for path in ("/metrics", "/healthz", "/readyz", "/api/backends"):
                    began = time.monotonic()
                    assert 200 == client.get(path).status_code
                    taken.append(time.monotonic() - began)
        background.ended.set()

        assert sorted(taken)[int(0.99 * len(taken))] < TIMES * 0.2
        assert all(answer.status_code == 200 for call in calls for _, answer in call.result())


def test_two_models_in_turn(folder: Path, background: Background) -> None:
    """With one place, sixteen clients that ask for two models in turn all get on; there is never a second backend."""
    for name in ("one", "two"):
        configure(folder, name)
    seen: set[int] = set()
    with served("--single-active-backend", folder=folder) as service:

        def watch() -> None:
            while not background.ended.is_set():
                seen.add(len(wardens(service)))
                time.sleep(0.02)  # the pace of the looks, not a wait for anything

        def client(number: int) -> list[int]:
            return [
                complete(service, ("one", "two")[(number + turn) % 2]).status_code
                for turn in range(4)
            ]

        watching = background.pool.submit(watch)
        clients = [background.pool.submit(client, number) for number in range(16)]
        answers = [one.result() for one in clients]
        background.ended.set()
        watching.result()
        loads = sum(
            metric(service, "localplane_backend_loads_total", model=name, outcome="ok")
            for name in ("one", "two")
        )

    assert [[200] * 4] * 16 == answers
    assert max(seen) <= 1
    # Half of the clients begin with each: every one of them needs both, twice. A swap for each call would be 64.
    assert loads <= 16


def test_killed_while_another_waits_for_its_place(folder: Path, background: Background) -> None:
    """A backend that dies in use leaves its place to who waits for it."""
    configure(folder, "long", "pieces:1000", "piece_seconds:0.05")
    configure(folder, "next")
    with served("--max-active-backends", "1", folder=folder) as service:
        backend = service.load("long")
        cut = background.pool.submit(complete, service, "long")
        wait_until(lambda: state(service, "long") == "busy")
        waiting = background.pool.submit(complete, service, "next")
        wait_until(lambda: state(service, "next") == "stopped")
        backend.kill()

        assert 200 == waiting.result().status_code
        assert "BACKEND_GONE" == reason(cut.result())
        assert "failed" == state(service, "long")


def test_load_that_is_stuck(folder: Path) -> None:
    """A load of which nothing moves is given up in time, nothing of it is left, and others load meanwhile."""
    configure(folder, "stuck", "load_seconds:3600")
    configure(folder, "other")
    with served("--load-timeout", "1s", folder=folder) as service:
        service.post("/backend/load", model="stuck", wait=False).raise_for_status()
        wait_until(lambda: state(service, "stuck") == "loading")
        service.load("other")
        wait_until(lambda: state(service, "stuck") == "failed", seconds=TIMES * 2.0)
        (failed,) = [
            one
            for one in service.get("/api/backends").json()["backends"]
            if one["model"] == "stuck"
        ]

        assert "moved for 1 s" in failed["last_error"]
        assert 200 == service.get("/readyz").status_code
        wait_until(lambda: len(wardens(service)) == 1)


def test_load_that_moves(folder: Path) -> None:
    """A load that goes on filling memory is given all the time it takes."""
    configure(folder, "large", "load_seconds:6", "grow_while_loading")
    with served("--load-timeout", "2s", folder=folder) as service:
        began = time.monotonic()
        service.load("large")

        assert time.monotonic() - began > 6


def test_suspended_load_makes_the_service_unready(folder: Path) -> None:
    """While neither a load nor its end gets on, readiness says so; once it ends, the service is ready again."""
    configure(folder, "stuck", "load_seconds:3600")
    with served("--load-timeout", "1s", folder=folder) as service:
        service.post("/backend/load", model="stuck", wait=False).raise_for_status()
        wait_until(lambda: state(service, "stuck") == "loading")
        # The one ends the backend, the other tells of its end.
        those_in_charge = [*wardens(service), service.keeper]
        for one in those_in_charge:
            one.suspend()
        wait_until(lambda: service.get("/readyz").status_code == 503, seconds=60)
        message = service.get("/readyz").json()["error"]["message"]
        for one in those_in_charge:
            with contextlib.suppress(
                psutil.NoSuchProcess
            ):  # it may have been killed for being stuck
                one.resume()

        assert "the load of stuck is overdue" in message
        wait_until(lambda: service.get("/readyz").status_code == 200)
        assert "failed" == state(service, "stuck")


def test_preload(folder: Path) -> None:
    """What is to be loaded at the start is loaded, past what cannot be."""
    configure(folder, "broken", "'load_error:no such weights'")
    configure(folder, "good")
    with served("--preload", "broken,nobody,good", folder=folder) as service:
        wait_until(lambda: state(service, "good") == "ready")

        assert "failed" == state(service, "broken")
        assert "model=nobody" in service.log.read_text()
        assert 200 == service.get("/readyz").status_code

"""The monitor, whatever the backend does: figures in time, none made up, and nobody held up."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest

from backend_trees import until
from fake_nvml import FakeNvml, process
from localplane.v1 import backend_pb2 as b
from localplane.v1 import (
    backend_service_pb2,
    backend_service_pb2_grpc,
    inference_service_pb2,
    inference_service_pb2_grpc,
)
from localplane_server.app import App, running
from localplane_server.config import Settings
from localplane_server.resources import device_uses
from localplane_server.scheduling import monitor
from localplane_server.setting_values import Endpoint
from localplane_server.supervision.keeper_handle import start_keeper
from localplane_server.supervision.programs import BackendProgram, BackendPrograms

pytestmark = pytest.mark.faults

FAKE = (sys.executable, str(Path(__file__).parents[1] / "backends" / "fake_backend.py"))
IN_TIME = 5 * 1.5
"""Five times what is promised."""

MODELS = {
    "well": "[pieces:3]",
    "mute": "['unimplemented:Status', pieces:3]",
    "stuck": "['hang:Status', 'pieces:40', 'piece_seconds:0.05']",
    "sick": "['fail:Health=INTERNAL']",
    "deaf": "['hang:Health', 'pieces:40', 'piece_seconds:0.05']",
    "slow": "['load_seconds:3']",
    "dies": "[die_while_loading:3, 'stderr:last words']",
    "crashes": "[die_on_predict, pieces:3, 'stderr:last words']",
    "boastful": "['memory:2', 'total:1']",
    "chatty": "[environment, die_on_predict, pieces:3]",
    "family": "[spawn_child]",
    "x.gguf": "[pieces:3]",
    "a/b c.gguf": "[pieces:3]",
    "modèle 模型.gguf": "[pieces:3]",
}
ALIASES = {"well": "[another name, 'alias/with slash']"}
SECRET = "hush-hush-0123"


@pytest.fixture
async def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[App]:
    """A service with models that misbehave."""
    monkeypatch.setattr(monitor, "SAMPLE_SECONDS", 0.2)
    monkeypatch.setattr(monitor, "PROBE_SECONDS", 0.2)
    (tmp_path / "models").mkdir()
    for number, (name, options) in enumerate(MODELS.items()):
        lines = [
            f"name: '{name}'",
            "backend: fake",
            "known_usecases: [none]",
            f"options: {options}",
        ]
        if name in ALIASES:
            lines.append(f"aliases: {ALIASES[name]}")
        (tmp_path / "models" / f"{number}.yaml").write_text("\n".join(lines))
    anywhere = Endpoint("127.0.0.1", 0)
    settings = Settings(
        data_dir=tmp_path, grpc_listen=anywhere, http_listen=anywhere, shutdown_grace=1.0
    )
    programs = BackendPrograms([BackendProgram(name="fake", argv=FAKE)])
    environment = {**os.environ, "HF_TOKEN": SECRET}
    async with running(settings, start_keeper(), programs=programs, environment=environment) as app:
        yield app


@pytest.fixture
def backends(app: App) -> Any:
    channel: Any = app.channel
    return backend_service_pb2_grpc.BackendServiceStub(channel)


@pytest.fixture
def inference(app: App) -> Any:
    channel: Any = app.channel
    return inference_service_pb2_grpc.InferenceServiceStub(channel)


@pytest.fixture
async def web(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{app.http}", timeout=30) as client:
        yield client


def states(app: App) -> dict[str, str]:
    return {one.model: one.state.value for one in app.scheduler.snapshots()}


async def load(backends: Any, model: str) -> None:
    await backends.LoadModel(backend_service_pb2.LoadModelRequest(model=model))


async def status(backends: Any, model: str) -> b.BackendStatus:
    """Ask the monitor, which answers in time."""
    began = time.monotonic()
    answer: b.BackendStatus = await backends.GetBackendStatus(
        backend_service_pb2.GetBackendStatusRequest(model=model)
    )
    assert time.monotonic() - began < IN_TIME
    return answer


async def complete(inference: Any, model: str) -> list[str]:
    request = inference_service_pb2.CompleteRequest(model=model, prompt=["x"])
    stream = inference.CompleteStream(request)
    async with aclosing(aiter(stream)) as pieces:
        return [choice.text async for piece in pieces for choice in piece.choices if choice.text]


async def failing(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def children_of(pid: int) -> list[int]:
    return [one.pid for one in psutil.Process(pid).children(recursive=True)]


def has_system_figures(answer: b.BackendStatus) -> bool:
    return (
        answer.memory_info.rss > 0
        and answer.memory_info.vms >= answer.memory_info.rss
        and answer.memory_percent > 0
        and answer.pid > 0
        and b.FIGURE_SOURCE_SYSTEM == answer.memory_info_origin.source
        and 0 <= answer.memory_info_origin.age_seconds < 30
    )


class TestFigures:
    async def test_of_a_backend_that_is_well(self, backends: Any) -> None:
        """Everything that is known is there, with who says it and how old it is; the rest says why it is not."""
        await load(backends, "well")
        first = await status(backends, "well")
        assert has_system_figures(first)
        assert (b.MONITOR_STATE_READY, b.REPORTED_STATE_READY) == (
            first.state,
            first.reported_state,
        )
        assert {"weights": 2**20} == dict(first.memory.breakdown)
        assert b.FIGURE_SOURCE_BACKEND == first.memory_origin.source
        assert first.memory_origin.age_seconds < IN_TIME
        assert [] == list(first.devices)
        assert first.unknown["devices"]
        unknown = dict(first.unknown)
        if not first.HasField("cpu_percent"):
            assert "two samples are needed" == unknown.pop("cpu_percent")
        assert {"devices"} == unknown.keys()

        async with asyncio.timeout(30):
            while not (await status(backends, "well")).HasField("cpu_percent"):
                await asyncio.sleep(0.05)

    async def test_of_the_whole_tree(self, backends: Any) -> None:
        """Children count."""
        await load(backends, "well")
        await load(backends, "family")
        alone = (await status(backends, "well")).memory_info.rss
        async with asyncio.timeout(30):  # the child has to become large first
            while (await status(backends, "family")).memory_info.rss < alone + 4 * 2**20:
                await asyncio.sleep(0.1)

    async def test_total_is_at_least_the_sum(self, backends: Any) -> None:
        """A total below its parts cannot be right."""
        await load(backends, "boastful")
        answer = await status(backends, "boastful")

        assert {"weights": 2 * 2**20} == dict(answer.memory.breakdown)
        assert 2 * 2**20 == answer.memory.total

    async def test_before_the_process_answers(self, backends: Any) -> None:
        """While a model loads, the state is 0 and nothing is made up."""
        await backends.LoadModel(backend_service_pb2.LoadModelRequest(model="slow", wait=False))
        seen = await status(backends, "slow")
        assert b.MONITOR_STATE_UNINITIALIZED == seen.state
        for name in ("memory_info", "memory_percent", "cpu_percent"):
            assert seen.HasField(name) or seen.unknown[name]
        async with asyncio.timeout(30):
            while (await status(backends, "slow")).state != b.MONITOR_STATE_READY:
                await asyncio.sleep(0.05)


class TestDevices:
    @pytest.fixture
    def nvml(self, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
        """NVIDIA's library, from before the service looks for it."""
        fake = FakeNvml()
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        monkeypatch.setattr(device_uses, "FRESH_SECONDS", 0.0)
        return fake

    async def test_of_the_whole_tree(self, nvml: FakeNvml, backends: Any) -> None:
        """What devices list for the backend and its children counts, and nobody else's does."""
        await load(backends, "family")
        pid = (await status(backends, "family")).pid
        await until(lambda: children_of(pid))
        (child,) = children_of(pid)
        nvml.computing = [process(pid, 100), process(child, 20), process(1, 5000)]
        nvml.drawing = [process(pid, 100)]
        async with asyncio.timeout(30):  # the tree is read now and then
            while (answer := await status(backends, "family")).devices[0].used != 120:
                await asyncio.sleep(0.05)
        (device,) = answer.devices

        assert ("NVIDIA GeForce RTX 4090", "0000:0a:00.0", 24 << 30) == (
            device.name,
            device.address,
            device.total,
        )
        assert b.FIGURE_SOURCE_NVML == device.origin.source
        assert device.origin.age_seconds < IN_TIME
        assert "devices" not in answer.unknown

    async def test_budget(self, nvml: FakeNvml, app: App, backends: Any) -> None:
        """Two models that take too much of a device together do not both stay; next time one goes before the other."""
        pids = {}
        for model in ("well", "mute"):
            await load(backends, model)
            pids[model] = (await status(backends, model)).pid
        nvml.computing = [process(pid, 12 << 30) for pid in pids.values()]
        await until(lambda: {"mute": "ready"} == states(app))
        nvml.computing = nvml.computing[1:]
        await load(backends, "well")

        assert {"well": "ready"} == states(app)

    async def test_that_tell_little(self, nvml: FakeNvml, backends: Any) -> None:
        """A device that lists the process and not its memory leaves it unknown; one that lists nothing is not there."""
        await load(backends, "well")
        pid = (await status(backends, "well")).pid
        nvml.computing = [process(pid, None)]
        (device,) = (await status(backends, "well")).devices
        assert not device.HasField("used")
        assert device.unknown["used"]

        nvml.computing = []
        answer = await status(backends, "well")
        assert [] == list(answer.devices)
        assert "no device lists a process" in answer.unknown["devices"]

        nvml.unsupported = {"processes"}
        answer = await status(backends, "well")
        assert "NVIDIA GeForce RTX 4090: Not Supported" == answer.unknown["devices"]


class TestNoStatus:
    async def test_not_there(self, backends: Any, inference: Any) -> None:
        """A backend without `Status` has the figures of the system, and says that it reports none."""
        await load(backends, "mute")
        answer = await status(backends, "mute")

        assert has_system_figures(answer)
        assert b.MONITOR_STATE_READY == answer.state
        assert not answer.HasField("memory")
        assert not answer.HasField("reported_state")
        assert not answer.HasField("memory_origin")
        assert "does not support it" in answer.unknown["memory"]
        assert 3 == len(await complete(inference, "mute"))

    async def test_hangs(self, backends: Any, inference: Any) -> None:
        """One whose `Status` hangs is not waited for; inference goes on, and while it does, the state is 1."""
        await load(backends, "stuck")
        idle = await status(backends, "stuck")
        assert has_system_figures(idle)
        assert b.MONITOR_STATE_READY == idle.state
        assert "in time" in idle.unknown["memory"]

        began = time.monotonic()
        working = asyncio.create_task(complete(inference, "stuck"))
        busy = [status(backends, "stuck") for _ in range(20)]
        answers = await asyncio.gather(*busy)
        assert 40 == len(await working)

        # Forty pieces of 50 ms each.
        assert time.monotonic() - began < 5 * 2.0
        assert any(one.state == b.MONITOR_STATE_BUSY and one.in_flight == 1 for one in answers)
        assert all(one.state != b.MONITOR_STATE_ERROR for one in answers)
        assert all(has_system_figures(one) for one in answers)


class TestHealth:
    async def test_fails_three_times(self, backends: Any) -> None:
        """A backend that is alive and says three times that it is not well is -1; its figures are there."""
        await load(backends, "sick")
        async with asyncio.timeout(30):
            while (answer := await status(backends, "sick")).state != b.MONITOR_STATE_ERROR:
                assert b.MONITOR_STATE_READY == answer.state
                await asyncio.sleep(0.05)

        assert has_system_figures(answer)
        assert "3 probes" in answer.unknown["state"]

    async def test_hangs(self, backends: Any, inference: Any) -> None:
        """The same for one that does not answer; while it works on a call, it is busy and not broken."""
        await load(backends, "deaf")
        working = asyncio.create_task(complete(inference, "deaf"))
        seen = set()
        while not working.done():
            answer = await status(backends, "deaf")
            seen.add((answer.in_flight, answer.state))
            await asyncio.sleep(0.02)
        assert (1, b.MONITOR_STATE_BUSY) in seen
        assert (1, b.MONITOR_STATE_ERROR) not in seen

        async with asyncio.timeout(30):
            while (await status(backends, "deaf")).state != b.MONITOR_STATE_ERROR:
                await asyncio.sleep(0.05)


class TestDeaths:
    async def test_while_loading(self, backends: Any) -> None:
        """Exit code and last words are in the error of the load, in the list, and in the monitor's answer."""
        error = await failing(load(backends, "dies"))
        asked = await failing(status(backends, "dies"))
        listed = await backends.ListBackends(backend_service_pb2.ListBackendsRequest())
        (one,) = listed.backends

        for text in (str(error.details()), str(asked.details()), one.last_error):
            assert "exit code 3" in text
            assert "last words" in text
        assert grpc.StatusCode.INTERNAL is asked.code()

    async def test_by_a_signal(self, backends: Any) -> None:
        """A process that somebody kills says so, with its last words, and nothing of memory."""
        await load(backends, "crashes")
        os.kill((await status(backends, "crashes")).pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            while True:
                listed = await backends.ListBackends(backend_service_pb2.ListBackendsRequest())
                (one,) = listed.backends
                if "last words" in one.last_error:
                    break
                await asyncio.sleep(0.02)

        assert "signal SIGKILL" in one.last_error
        assert "memory" not in one.last_error

    async def test_secrets(self, backends: Any, inference: Any, tmp_path: Path) -> None:
        """A backend that prints its environment before it dies gives away none of it."""
        await load(backends, "chatty")
        error = await failing(complete(inference, "chatty"))
        async with asyncio.timeout(30):
            while True:
                listed = await backends.ListBackends(backend_service_pb2.ListBackendsRequest())
                if "last lines" in listed.backends[0].last_error:
                    break
                await asyncio.sleep(0.02)
        file = next((tmp_path / "logs").glob("*.log")).read_text()

        assert "HF_TOKEN=***" in file
        assert "LOCALAI_GRPC_AUTH_TOKEN=***" in file
        for text in (str(error.details()), listed.backends[0].last_error, file):
            assert SECRET not in text


NAMES = ("x.gguf", "a/b c.gguf", "modèle 模型.gguf", "another name", "alias/with slash")


class TestNames:
    @pytest.mark.parametrize("name", NAMES)
    async def test_every_way_to_say_it(self, web: httpx.AsyncClient, name: str) -> None:
        """Monitor and stop mean the same model, whether the name stands in the query or in the body."""
        (await web.post("/backend/load", json={"model": name})).raise_for_status()
        (await web.post("/backend/load", json={"model": "mute"})).raise_for_status()
        asked = [
            await web.get("/backend/monitor", params={"model": name}),
            await web.request("GET", "/backend/monitor", json={"model": name}),
            await web.post("/backend/monitor", json={"model": name}),
            await web.post("/v1/backend/monitor", params={"model": name}),
        ]
        expected = "well" if "name" in name or "alias" in name else name
        assert [(200, expected)] * 4 == [(one.status_code, one.json()["model"]) for one in asked]
        assert 1 == len({one.json()["pid"] for one in asked})

        stopped = await web.post("/backend/shutdown", json={"model": name})
        assert 200 == stopped.status_code
        again = await web.post("/backend/shutdown", params={"model": name})
        gone = await web.get("/backend/monitor", params={"model": name})
        for answer in (again, gone):
            assert 500 == answer.status_code
            assert f"backend {name} is not currently loaded" == answer.json()["error"]["message"]
        # The other one lives.
        assert 2 == (await web.get("/backend/monitor?model=mute")).json()["state"]

    @pytest.mark.parametrize("path", ["/backend/monitor", "/backend/shutdown"])
    async def test_no_name(self, web: httpx.AsyncClient, path: str) -> None:
        """Without a name it is the caller's mistake, and never some model."""
        await web.post("/backend/load", json={"model": "well"})
        ways: list[Any] = [{}, {"json": {}}, {"json": {"model": ""}}, {"params": {"model": " "}}]
        for sent in ways:
            answer = await web.post(path, **sent)
            assert 400 == answer.status_code
            assert "INVALID_MODEL_NAME" == answer.json()["error"]["reason"]

        assert 2 == (await web.get("/backend/monitor?model=well")).json()["state"]

    async def test_never_loads(self, web: httpx.AsyncClient) -> None:
        """Asking for a model that is not loaded does not load it, nor does asking for its log."""
        assert 500 == (await web.get("/backend/monitor?model=well")).status_code
        assert 200 == (await web.get("/api/backend-logs/well")).status_code
        assert [] == (await web.get("/api/backends")).json()["backends"]

"""Backends that are none of ours, over every transport: installed ones, scripts, and servers that run elsewhere."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from backends.processes import free_port
from contract.transports import CallError, Transport
from foreign import external, install
from localplane.v1 import backend_pb2 as b
from localplane.v1 import backend_service_pb2 as pb
from localplane.v1 import inference_service_pb2, model_service_pb2, system_service_pb2
from localplane_server.setting_values import Endpoint, ExternalSetting

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = {
    "inside": "backend: speech",
    "typed": "backend: sentencetransformers",
    "script": "backend: scripted\nmmproj: eye.gguf\nengine_args: {a: 1}\nflash_attention: 'off'",
    "first": "backend: far",
    "second": "backend: far",
    "old": "backend: old",
    "lost": "backend: nowhere-yet",
    "path": "backend: /bin/sh",
    "dots": "backend: ../backends/cpu-speech/run.sh",
    "url": "backend: 'http://127.0.0.1:50051'",
    "address": "backend: '127.0.0.1:50051'",
    "broken": "backend: broken",
}
HOSTILE = ["address", "dots", "path", "url"]


@contextlib.contextmanager
def prepare(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[dict[str, Any]]:
    """Fill the backends folder and start two servers elsewhere."""
    program = request.getfixturevalue("foreign_program")
    old = request.getfixturevalue("old_program")
    root = data_dir / "backends"
    written = {"alias": "talk", "name": "speech", "installed_at": "2025-08-01T10:00:00Z"}
    install(root, "cpu-speech", program, written)
    install(root, "transformers", program)
    (root / "speech").mkdir()
    (root / "speech" / "metadata.json").write_text('{"meta_backend_for": "cpu-speech"}')
    install(root, "broken", program, "no object")
    (root / "evil").symlink_to("/bin")
    for name, backend in MODELS.items():
        text = f"name: {name}\nknown_usecases: [none]\n{backend}\n"
        (data_dir / "models" / f"{name}.yaml").write_text(text)
    with (
        external(program, data_dir / "far.log") as far,
        external(old, data_dir / "old.log") as mute,
    ):
        backends = (
            ExternalSetting("far", Endpoint("127.0.0.1", far.port)),
            ExternalSetting("old", Endpoint("127.0.0.1", mute.port)),
            ExternalSetting("nowhere-yet", Endpoint("127.0.0.1", free_port())),
            ExternalSetting("scripted", program),
        )
        yield {"external_grpc_backends": backends}


async def load(transport: Transport, model: str) -> None:
    await transport.call("BackendService.LoadModel", pb.LoadModelRequest(model=model))


async def status(transport: Transport, model: str) -> b.BackendStatus:
    response: b.BackendStatus = await transport.call(
        "BackendService.GetBackendStatus", pb.GetBackendStatusRequest(model=model)
    )
    return response


async def stop(transport: Transport, model: str) -> pb.ShutdownBackendResponse:
    response: pb.ShutdownBackendResponse = await transport.call(
        "BackendService.ShutdownBackend", pb.ShutdownBackendRequest(model=model)
    )
    return response


async def described(transport: Transport, model: str) -> dict[str, Any]:
    """Have the backend say what it was started and loaded with."""
    request = inference_service_pb2.CompleteRequest(model=model, prompt=["describe"])
    answer = await transport.call("InferenceService.Complete", request)
    description: dict[str, Any] = json.loads(answer.choices[0].text)
    return description


async def fails(call: object) -> CallError:
    with pytest.raises(CallError) as caught:
        await call  # type: ignore[misc]  # a coroutine of any answer
    return caught.value


class TestLists:
    async def test_backends(self, transport: Transport) -> None:
        """Each with where it comes from; a meta backend with what it stands for; a server with its address."""
        answer = await transport.call(
            "BackendService.ListInstalledBackends", pb.ListInstalledBackendsRequest()
        )
        found = {one.name: one for one in answer.backends}

        assert {
            "cpu-speech": b.BACKEND_SOURCE_INSTALLED,
            "speech": b.BACKEND_SOURCE_INSTALLED,
            "far": b.BACKEND_SOURCE_EXTERNAL,
            "scripted": b.BACKEND_SOURCE_EXTERNAL,
            "llama": b.BACKEND_SOURCE_SHIPPED,
        }.items() <= {name: one.source for name, one in found.items()}.items()
        assert not {"broken", "evil"} & found.keys()
        assert found["speech"].is_meta
        assert "cpu-speech" == found["speech"].metadata.meta_backend_for
        assert found["speech"].run_file == found["cpu-speech"].run_file
        assert not found["cpu-speech"].is_system
        assert "2025-08-01T10:00:00Z" == found["cpu-speech"].metadata.installed_at
        assert not found["cpu-speech"].metadata.HasField("gallery_url")
        assert not found["llama"].HasField("metadata")
        assert ["talk"] == list(found["cpu-speech"].aliases)
        assert "127.0.0.1:" in found["far"].address
        assert "" == found["far"].run_file
        assert not found["scripted"].HasField("address")

    async def test_system(self, transport: Transport) -> None:
        """Every name and alias, once."""
        answer = await transport.call(
            "SystemService.GetSystem", system_service_pb2.GetSystemRequest()
        )

        assert sorted(set(answer.backends)) == list(answer.backends)
        names = {"cpu-speech", "speech", "talk", "far", "scripted", "llama", "llama-cpp"}
        assert names | {"transformers", "sentencetransformers"} <= set(answer.backends)

    async def test_reload(self, transport: Transport) -> None:
        """What is broken is told, of both folders."""
        answer = await transport.call(
            "ModelService.ReloadModels", model_service_pb2.ReloadModelsRequest()
        )

        assert [
            ("broken", "its metadata.json is not a JSON object"),
            ("evil", "links out of the backends folder"),
        ] == [(one.name, one.message) for one in answer.backend_problems]
        assert [f"{name}.yaml" for name in HOSTILE] == [one.file for one in answer.problems]

    @pytest.mark.parametrize("name", HOSTILE)
    async def test_what_is_no_name(self, transport: Transport, name: str) -> None:
        """A configuration that would choose a program or a server by itself is no model."""
        answer = await transport.call(
            "ModelService.ReloadModels", model_service_pb2.ReloadModelsRequest()
        )
        [problem] = [one for one in answer.problems if one.file == f"{name}.yaml"]

        assert "is not a name of letters" in problem.message
        assert "MODEL_NOT_FOUND" == (await fails(load(transport, name))).reason

    async def test_broken_one_is_not_there(self, transport: Transport) -> None:
        """A model whose backend is broken says which."""
        error = await fails(load(transport, "broken"))

        assert ("BACKEND_NOT_INSTALLED", "backend not found: broken") == (
            error.reason,
            error.message,
        )


class TestPrograms:
    @pytest.mark.parametrize(
        ("model", "folder", "kind"),
        [
            ("inside", "cpu-speech", ""),
            ("typed", "transformers", "SentenceTransformer"),
            ("script", "program", ""),
        ],
    )
    async def test_started_as_localai_starts_them(
        self, transport: Transport, model: str, folder: str, kind: str
    ) -> None:
        """In their folder, with two arguments, and told what LocalAI tells."""
        await load(transport, model)
        seen = await status(transport, model)
        told = await described(transport, model)
        stopped = await stop(transport, model)

        assert folder == Path(told["cwd"]).name
        assert "--addr" == told["argv"][1]
        assert told["argv"][2].startswith("127.0.0.1:")
        assert (kind, 512, 99_999_999) == (told["type"], told["batch"], told["gpu_layers"])
        assert told["flash_attention"] == ("off" if model == "script" else "auto")
        assert told["threads"] >= 1
        assert seen.pid > 0
        assert seen.memory_info.rss > 0
        assert stopped.freed_bytes > 0

    async def test_told_what_the_configuration_says(self, transport: Transport) -> None:
        """Keys that mean nothing to the service itself reach the backend."""
        told = await described(transport, "script")
        await stop(transport, "script")

        assert f"{told['models_path']}/eye.gguf" == told["mmproj"]
        assert ('{"a": 1}', "off") == (told["engine_args"], told["flash_attention"])


class TestServers:
    async def test_load_watch_stop(self, transport: Transport) -> None:
        """It serves; its process is not ours, so figures of the system are null, and why is told."""
        await load(transport, "first")
        seen = await status(transport, "first")
        listed = await transport.call("BackendService.ListBackends", pb.ListBackendsRequest())
        [one] = [one for one in listed.backends if one.model == "first"]
        told = await described(transport, "first")
        stopped = await stop(transport, "first")

        assert (b.MONITOR_STATE_READY, b.REPORTED_STATE_READY) == (seen.state, seen.reported_state)
        for figure in ("pid", "memory_info", "memory_percent", "cpu_percent", "sampled_at"):
            assert not seen.HasField(figure)
            assert "the backend runs outside this service" == seen.unknown[figure]
        assert not one.HasField("pid")
        assert not one.HasField("memory_info")
        assert "first" == told["model"]
        assert not stopped.HasField("freed_bytes")
        assert "MODEL_NOT_LOADED" == (await fails(status(transport, "first"))).reason

    async def test_one_model_at_a_time(self, transport: Transport) -> None:
        """A second model does not replace the first behind its back."""
        await load(transport, "first")
        error = await fails(load(transport, "second"))
        told = await described(transport, "first")
        await stop(transport, "first")
        await load(transport, "second")
        await stop(transport, "second")

        assert "EXTERNAL_SERVER_TAKEN" == error.reason
        assert error.code in (409, grpc.StatusCode.FAILED_PRECONDITION)
        assert {"backend": "far", "model": "second", "holder": "first"} == error.metadata
        assert "first" == told["model"]

    async def test_status_that_fails(self, transport: Transport) -> None:
        """Where the server has no word for itself, nothing is known, and that is an error; it serves all the same."""
        await load(transport, "old")
        error = await fails(status(transport, "old"))
        told = await described(transport, "old")
        await stop(transport, "old")

        assert "BACKEND_STATUS_FAILED" == error.reason
        assert error.code in (500, grpc.StatusCode.INTERNAL)
        assert error.message.startswith(
            "backend old experienced an error retrieving status info via rpc: "
        )
        assert {"model": "old"} == error.metadata
        assert "old" == told["model"]

    async def test_unreachable(self, transport: Transport) -> None:
        """Where nobody listens, the load says so, and not where that would have been."""
        error = await fails(load(transport, "lost"))

        expected = "the server of backend nowhere-yet cannot be reached: connection refused"
        assert ("LOAD_FAILED", f"cannot load model lost: {expected}") == (
            error.reason,
            error.message,
        )

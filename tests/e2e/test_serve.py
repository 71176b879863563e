"""`localplane serve` as its users meet it: the ready line, real clients, real refusals."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import openai
import pytest

from localplane.v1 import system_service_pb2, system_service_pb2_grpc
from localplane_server import __version__
from served import LOCALPLANE, Served, served


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Path:
    """A data directory with a tiny model, once for text and once for vectors."""
    models = tmp_path_factory.mktemp("home") / "data" / "models"
    models.mkdir(parents=True)
    shutil.copy(tiny_gguf, models / "tiny.gguf")
    for name, more in (("tiny", ""), ("vectors", "embeddings: true\n")):
        text = f"name: {name}\nbackend: llama\nparameters: {{model: tiny.gguf}}\n{more}"
        (models / f"{name}.yaml").write_text(text)
    return models.parent


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Served]:
    """A service on that directory."""
    with served(folder=folder) as service:
        yield service


@pytest.fixture
def client(service: Served) -> Iterator[openai.OpenAI]:
    """OpenAI's own client."""
    with openai.OpenAI(base_url=f"http://{service.http}/v1", api_key="unused") as client:
        yield client


def test_greeting(service: Served) -> None:
    """The commands that a start proposes find the service, wherever it listens."""
    proposed = [line for line in service.log.read_text().splitlines() if "localplane chat" in line]

    assert [f'  localplane chat smollm2 "Say hello." --grpc {service.grpc}'] == proposed


class TestOpenAiClient:
    def test_models(self, client: openai.OpenAI) -> None:
        """The list is read."""
        assert ["tiny", "vectors"] == [model.id for model in client.models.list()]

    def test_chat(self, client: openai.OpenAI) -> None:
        """An answer, its end and its cost."""
        answer = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hello"}], max_tokens=4
        )

        assert answer.choices[0].message.content
        assert "length" == answer.choices[0].finish_reason
        assert answer.usage is not None
        assert 4 == answer.usage.completion_tokens

    def test_chat_stream(self, client: openai.OpenAI) -> None:
        """Piece by piece, the same text."""
        whole = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=8,
            temperature=0,
        )
        chunks = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=8,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        seen = list(chunks)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in seen if chunk.choices)

        assert whole.choices[0].message.content == text
        assert seen[-1].usage == whole.usage

    def test_completion(self, client: openai.OpenAI) -> None:
        """The older interface."""
        answer = client.completions.create(model="tiny", prompt="hello", max_tokens=4)

        assert answer.choices[0].text

    def test_embeddings(self, client: openai.OpenAI) -> None:
        """The client asks for base64 by itself and reads it; asked for floats, it gets the same."""
        coded = client.embeddings.create(model="vectors", input=["a cat", "a dog"])
        plain = client.embeddings.create(model="vectors", input="a cat", encoding_format="float")

        assert 2 == len(coded.data)
        assert coded.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)

    def test_error(self, client: openai.OpenAI) -> None:
        """The client knows what kind of error it is."""
        with pytest.raises(openai.NotFoundError, match='model "nobody" not found'):
            client.chat.completions.create(
                model="nobody", messages=[{"role": "user", "content": "x"}]
            )


class TestDocumentedCommands:
    """The lines of the documents that the product was asked for in, as curl sends them."""

    def curl(self, service: Served, *arguments: str) -> tuple[int, dict[str, object]]:
        if shutil.which("curl") is None:
            pytest.skip("no curl")
        url, *rest = (
            one.replace("http://localhost:8080", f"http://{service.http}") for one in arguments
        )
        done = subprocess.run(
            ["curl", "-s", "-w", "\n%{http_code}", url, *rest],
            capture_output=True,
            text=True,
            check=True,
        )
        body, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(body)

    def test_monitor_and_shutdown(self, service: Served) -> None:
        """Verbatim but for the model's name and the port."""
        monitor = (
            "http://localhost:8080/backend/monitor",
            *("-H", "Content-Type: application/json", "-d", '{"model": "tiny"}'),
        )
        shutdown = (
            *("http://localhost:8080/backend/shutdown", "-X", "POST"),
            *("-H", "Content-Type: application/json", "-d", '{"model": "tiny"}'),
        )
        service.load("tiny")
        status, seen = self.curl(service, *monitor)
        assert (200, 2) == (status, seen["state"])
        assert isinstance(seen["memory"], dict)
        assert {"weights", "kv_cache"} <= seen["memory"]["breakdown"].keys()

        status, stopped = self.curl(service, *shutdown)
        assert (200, "model stopped") == (status, stopped["message"])

        status, gone = self.curl(service, *monitor)
        assert 500 == status
        assert {
            "code": 500,
            "message": "backend tiny is not currently loaded",
            "type": "",
            "reason": "MODEL_NOT_LOADED",
            "metadata": {"model": "tiny"},
        } == gone["error"]


class TestStart:
    def test_nothing_but_the_ready_line_on_standard_output(
        self, folder: Path, tmp_path: Path
    ) -> None:
        """Programs read standard output; people read the rest."""
        with served(folder=tmp_path / "data") as service:
            assert "Try:" in service.log.read_text()
            assert "v" + __version__ == service.get("/version").json()["version"]

    def test_directory_in_use(self, service: Served, folder: Path) -> None:
        """A second service on one directory is refused, and says who has it."""
        refused = self.refused("--data-dir", str(folder))

        assert f"process {service.process.pid}" in refused

    def test_port_in_use(self, service: Served, tmp_path: Path) -> None:
        """A port that is taken is named with its holder, on both interfaces."""
        for flag, address in (("--http-listen", service.http), ("--grpc-listen", service.grpc)):
            other = "--grpc-listen" if flag == "--http-listen" else "--http-listen"
            refused = self.refused(
                *("--data-dir", str(tmp_path), flag, address, other, "127.0.0.1:0")
            )
            assert f"cannot listen on {address}" in refused
            assert f"process {service.process.pid}" in refused

    def test_open_address_without_key(self, tmp_path: Path) -> None:
        """Nobody is let in from outside by accident."""
        refused = self.refused("--data-dir", str(tmp_path), "--http-listen", "0.0.0.0:0")

        assert "without an API key" in refused

    def test_state_of_a_newer_version(self, tmp_path: Path) -> None:
        """What a newer version wrote is left alone."""
        database = tmp_path / "state.db"
        with served(folder=tmp_path):
            pass
        subprocess.run(
            [
                LOCALPLANE[0],
                "-c",
                f"import apsw; apsw.Connection({str(database)!r}).pragma('user_version', 999)",
            ],
            check=True,
        )

        assert "newer version" in self.refused("--data-dir", str(tmp_path))

    def refused(self, *arguments: str) -> str:
        """Return what a service that cannot start says."""
        done = subprocess.run(
            [*LOCALPLANE, "serve", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert 1 == done.returncode
        assert "" == done.stdout
        assert "Traceback" not in done.stderr
        return done.stderr


class TestAccess:
    def test_keys_on_both_interfaces(self, tmp_path: Path) -> None:
        """One key file guards gRPC and REST; probes and the document stay open."""
        keys = tmp_path / "keys"
        keys.write_text("boss\nguest user\n")
        keys.chmod(0o600)
        with served("--api-key-file", str(keys), folder=tmp_path / "data") as service:
            base = f"http://{service.http}"
            statuses = {
                (path, key): httpx.get(
                    base + path, headers={"authorization": f"Bearer {key}"} if key else {}
                ).status_code
                for path in ("/healthz", "/readyz", "/openapi.json", "/version", "/system")
                for key in ("", "wrong", "guest", "boss")
            }
            with grpc.insecure_channel(service.grpc) as channel:
                stub = system_service_pb2_grpc.SystemServiceStub(channel)
                with pytest.raises(grpc.RpcError) as caught:
                    stub.GetVersion(system_service_pb2.GetVersionRequest())
                stub.GetVersion(
                    system_service_pb2.GetVersionRequest(),
                    metadata=(("authorization", "Bearer guest"),),
                )

        for path in ("/healthz", "/readyz", "/openapi.json"):
            assert {200} == {statuses[path, key] for key in ("", "wrong", "guest", "boss")}
        assert [401, 401, 200, 200] == [
            statuses["/version", key] for key in ("", "wrong", "guest", "boss")
        ]
        assert [401, 401, 403, 200] == [
            statuses["/system", key] for key in ("", "wrong", "guest", "boss")
        ]
        assert grpc.StatusCode.UNAUTHENTICATED is caught.value.code()

    def test_socket_file(self, tmp_path: Path) -> None:
        """GRPC also listens on a socket that only its user may open, and leaves none behind."""
        path = tmp_path / "s"
        # What a server that was killed leaves is no obstacle.
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        with served("--grpc-uds", str(path), folder=tmp_path / "data") as service:
            assert 0o600 == path.stat().st_mode & 0o777
            with grpc.insecure_channel(f"unix:{path}") as channel:
                stub = system_service_pb2_grpc.SystemServiceStub(channel)
                stub.GetVersion(system_service_pb2.GetVersionRequest())
            service.process.terminate()
            assert 0 == service.process.wait(30)

        assert not path.exists()


class TestModelsFolder:
    def test_localai_folder(self, tmp_path: Path, tiny_gguf: Path) -> None:
        """An existing LocalAI folder works as it is; what cannot be used in it is skipped."""
        models = tmp_path / "models"
        models.mkdir()
        shutil.copy(tiny_gguf, models / "weights.gguf")
        (models / "assistant.yaml").write_text(
            "name: assistant\nbackend: llama-cpp\nparameters:\n  model: weights.gguf\n"
            "  temperature: 0.1\ntemplate:\n  use_tokenizer_template: true\n"
        )
        (models / "bad.yaml").write_text("name: [")
        (models / "._gallery_assistant.yaml").write_text("files: []")
        with served("--models-path", str(models), folder=tmp_path / "data") as service:
            listed = [one["id"] for one in service.get("/v1/models").json()["data"]]
            problems = service.post("/models/reload").json()["problems"]
            answer = service.post("/v1/completions", model="assistant", prompt="a", max_tokens=2)

        assert ["assistant"] == listed
        assert ["bad.yaml"] == [one["file"] for one in problems]
        assert 200 == answer.status_code

    def test_no_autoload(self, folder: Path, tmp_path: Path) -> None:
        """Told not to load on demand, it says so, and loads when it is told to."""
        with served(
            *("--no-autoload", "--models-path", str(folder / "models")), folder=tmp_path / "data"
        ) as service:
            refused = service.post("/v1/completions", model="tiny", prompt="a", max_tokens=2)
            service.load("tiny")
            answered = service.post("/v1/completions", model="tiny", prompt="a", max_tokens=2)

        assert (400, "AUTOLOAD_DISABLED") == (
            refused.status_code,
            refused.json()["error"]["reason"],
        )
        assert 200 == answered.status_code


class TestGatewayAlone:
    def test_in_front_of_a_server(self, service: Served) -> None:
        """The same answers by way of another process."""
        process = subprocess.Popen(
            [*LOCALPLANE, "gateway", "--upstream", service.grpc, "--http-listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout:
            line = process.stdout.readline().split()
        try:
            address = line[1].removeprefix("http=")
            models = httpx.get(f"http://{address}/v1/models").json()
            missing = httpx.get(f"http://{address}/backend/monitor", params={"model": "nobody"})
        finally:
            process.terminate()
            code = process.wait(30)

        assert "ready" == line[0]
        assert service.get("/v1/models").json() == models
        assert "MODEL_NOT_LOADED" == missing.json()["error"]["reason"]
        assert 0 == code

    def test_refuses_to_open_what_is_open(self, service: Served) -> None:
        """It does not let others in to a server that asks nobody for a key."""
        done = subprocess.run(
            [*LOCALPLANE, "gateway", "--upstream", service.grpc, "--http-listen", "0.0.0.0:0"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

        assert 1 == done.returncode
        assert "asks nobody for a key" in done.stderr


class TestRealModel:
    def test_a_real_answer(self, smollm2: Path, tmp_path: Path) -> None:
        """A model that was trained answers what was asked, over both interfaces of OpenAI's shapes."""
        models = tmp_path / "data" / "models"
        models.mkdir(parents=True)
        os.link(smollm2, models / "smollm2.gguf")
        with served("--context-size", "1024", folder=tmp_path / "data") as service:
            with openai.OpenAI(base_url=f"http://{service.http}/v1", api_key="x") as client:
                chat = client.chat.completions.create(
                    model="smollm2.gguf",
                    messages=[{"role": "user", "content": "What is 2+2? Answer with one number."}],
                    temperature=0,
                    max_tokens=30,
                )
                text = client.completions.create(
                    model="smollm2.gguf",
                    prompt="The capital of France is",
                    temperature=0,
                    max_tokens=8,
                )
            tokens = service.post(
                "/v1/tokenize", model="smollm2.gguf", content="hello world"
            ).json()

        assert "4" in (chat.choices[0].message.content or "")
        assert "Paris" in text.choices[0].text
        assert 2 == tokens["count"]

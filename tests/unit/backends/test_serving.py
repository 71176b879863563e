"""How backend programs start, guard themselves and end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from backends.processes import FAKE, LLAMA, free_port, running, wait_until
from localplane.localai import backend_pb2, backend_pb2_grpc

SECONDS = 20.0
DOCUMENT = Path(__file__).parents[3] / "docs" / "backends.md"


def channel_to(address: str) -> grpc.Channel:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    return grpc.insecure_channel(address, options=options)


def ask(channel: grpc.Channel, *metadata: tuple[str, str]) -> backend_pb2.Reply:
    return backend_pb2_grpc.BackendStub(channel).Health(
        backend_pb2.HealthMessage(), wait_for_ready=True, timeout=SECONDS, metadata=metadata
    )


@pytest.fixture
def socket_address(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/b.sock"


class TestAddress:
    @pytest.mark.parametrize("form", ["two", "one"])
    def test_both_forms(self, tmp_path: Path, form: str) -> None:
        """The address may be an argument of its own or stand behind an equals sign."""
        address = f"127.0.0.1:{free_port()}"
        arguments = ["--addr", address] if form == "two" else [f"--addr={address}"]
        process = subprocess.Popen([*FAKE, *arguments])
        try:
            with channel_to(address) as channel:
                assert b"OK" == ask(channel).message
        finally:
            process.kill()
            process.wait()

    def test_taken(self, tmp_path: Path) -> None:
        """A second program does not share the port: it says why, in one line, and ends with 1."""
        with running(FAKE, tmp_path) as first, channel_to(first.address) as channel:
            ask(channel)
            second = subprocess.run(
                [*LLAMA, "--addr", first.address], capture_output=True, text=True, check=False
            )

        assert 1 == second.returncode
        assert f"cannot listen on {first.address}: Address already in use\n" == second.stderr

    @pytest.mark.parametrize(
        ("address", "why"),
        [("unix:/nowhere/b.sock", "No such file or directory"), ("nonsense", "not supported")],
    )
    def test_none(self, address: str, why: str) -> None:
        """An address that is none is an error with a cause too."""
        result = subprocess.run(
            [*LLAMA, "--addr", address], capture_output=True, text=True, check=False
        )

        assert 1 == result.returncode
        assert result.stderr.startswith(f"cannot listen on {address}: ")
        assert why in result.stderr
        assert 1 == result.stderr.count("\n")


def test_documented_backend(tmp_path: Path, socket_address: str) -> None:
    """The backend that the documentation shows works; what it lacks is told without a trace."""
    text = DOCUMENT.read_text(encoding="utf-8")
    program = tmp_path / "echo.py"
    program.write_text(text.partition("```python\n")[2].partition("```")[0], encoding="utf-8")
    command = (sys.executable, str(program))
    with (
        running(command, tmp_path, address=socket_address) as started,
        channel_to(socket_address) as channel,
    ):
        ask(channel)
        stub = backend_pb2_grpc.BackendStub(channel)
        stub.LoadModel(backend_pb2.ModelOptions(Model="m"))
        reply = stub.Predict(backend_pb2.PredictOptions(Prompt="hello"))
        with pytest.raises(grpc.RpcError) as caught:
            stub.Embedding(backend_pb2.PredictOptions())

        assert b"hello" == reply.message
        assert (grpc.StatusCode.UNIMPLEMENTED, "echo: Embedding is not implemented") == (
            caught.value.code(),
            caught.value.details(),
        )
        assert "Traceback" not in started.log.read_text(encoding="utf-8")


class TestToken:
    @pytest.fixture
    def channel(self, tmp_path: Path, socket_address: str) -> Iterator[grpc.Channel]:
        with (
            running(FAKE, tmp_path, address=socket_address, LOCALAI_GRPC_AUTH_TOKEN="secret"),
            channel_to(socket_address) as channel,
        ):
            yield channel

    def test_right(self, channel: grpc.Channel) -> None:
        """The right token opens the backend."""
        assert b"OK" == ask(channel, ("authorization", "Bearer secret")).message

    @pytest.mark.parametrize(
        ("metadata", "text"),
        [
            ([("other", "x")], "missing authorization header"),
            ([("authorization", "Basic secret")], "authorization must use Bearer scheme"),
            ([("authorization", "Bearer wrong")], "invalid token"),
            ([("authorization", "Bearer ")], "invalid token"),
        ],
    )
    def test_wrong(self, channel: grpc.Channel, metadata: list[tuple[str, str]], text: str) -> None:
        """Every other call is refused, in LocalAI's words."""
        with pytest.raises(grpc.RpcError) as caught:
            ask(channel, *metadata)

        assert (grpc.StatusCode.UNAUTHENTICATED, text) == (
            caught.value.code(),
            caught.value.details(),
        )

    def test_wrong_in_a_stream(self, channel: grpc.Channel) -> None:
        """Streams are guarded too."""
        stub = backend_pb2_grpc.BackendStub(channel)
        ask(channel, ("authorization", "Bearer secret"))

        with pytest.raises(grpc.RpcError) as caught:
            list(stub.PredictStream(backend_pb2.PredictOptions(Prompt="x"), timeout=SECONDS))

        assert grpc.StatusCode.UNAUTHENTICATED == caught.value.code()


class TestMessages:
    def test_large(self, tmp_path: Path, socket_address: str) -> None:
        """Messages may be as large as LocalAI's, both ways."""
        with running(FAKE, tmp_path, address=socket_address), channel_to(socket_address) as channel:
            ask(channel)
            stub = backend_pb2_grpc.BackendStub(channel)
            stub.LoadModel(backend_pb2.ModelOptions(Model="m"))
            text = "x" * (20 * 1024 * 1024)

            reply = stub.Predict(backend_pb2.PredictOptions(Prompt=text), timeout=SECONDS)

        assert len(text) + 1 == len(reply.message)


class TestEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_signal(self, tmp_path: Path, socket_address: str, number: int) -> None:
        """A signal ends the program with 0, even in the middle of a call."""
        with (
            running(FAKE, tmp_path, address=socket_address) as started,
            channel_to(socket_address) as channel,
        ):
            ask(channel)
            stub = backend_pb2_grpc.BackendStub(channel)
            stub.LoadModel(
                backend_pb2.ModelOptions(Model="m", Options=["pieces:9", "piece_seconds:600"])
            )
            stream = stub.PredictStream(backend_pb2.PredictOptions(Prompt="x"))
            busy = backend_pb2.StatusResponse.BUSY
            wait_until(
                lambda: stub.Status(backend_pb2.HealthMessage()).state == busy, "a call in flight"
            )

            started.process.send_signal(number)

            assert 0 == started.process.wait(SECONDS)
            with pytest.raises(grpc.RpcError):
                next(stream)

    def test_parent_gone(self, tmp_path: Path, socket_address: str) -> None:
        """A backend whose parent dies ends by itself."""
        middle = (
            "import subprocess, sys, time;"
            "print(subprocess.Popen(sys.argv[1:]).pid, flush=True);"
            "time.sleep(600)"
        )
        parent = subprocess.Popen(
            [sys.executable, "-c", middle, *FAKE, "--addr", socket_address],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LOCALAI_BACKEND_PARENT_WATCH_INTERVAL": "20ms"},
        )
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        with channel_to(socket_address) as channel:
            ask(channel)

        parent.kill()
        parent.wait()
        parent.stdout.close()

        wait_until(lambda: is_over(child), "the end of the backend")


def is_over(pid: int) -> bool:
    """Return whether a process has ended, reaped or not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"

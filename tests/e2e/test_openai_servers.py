"""The openai backend with a real server, run elsewhere and started by the backend itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest

from backends.openai_program import (
    NOTHING,
    SECONDS,
    backend,
    chat,
    text_of,
    until_state,
)
from backends.processes import COMMAND, llama_server
from localplane.localai import backend_pb2
from served import alive

Code = grpc.StatusCode
STATUS = backend_pb2.StatusResponse
KEY = "sk-very-secret-key"


@pytest.fixture(scope="module")
def llama_url(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a real server with the tiny model is."""
    pytest.importorskip("xllamacpp", reason="the extra llama is not installed")
    with llama_server(tiny_gguf, tmp_path_factory.mktemp("llama")) as url:
        yield url


def directly(url: str, path: str, **body: Any) -> Any:
    return httpx.post(f"{url}{path}", json=body, timeout=SECONDS, trust_env=False).json()


class TestRealServer:
    async def test_answers_are_the_servers(self, tmp_path: Path, llama_url: str) -> None:
        """Through the backend comes what the server says when it is asked directly, counted as it counts."""
        greedy = {"temperature": 0, "max_tokens": 12}
        message = {"role": "user", "content": "hi"}
        own_chat = directly(llama_url, "/v1/chat/completions", messages=[message], **greedy)
        own_text = directly(llama_url, "/v1/completions", prompt="hello", **greedy)
        async with backend(tmp_path, url=llama_url) as one:
            assert (await one.load("tiny.gguf")).success
            whole = await one.chat(Tokens=12)
            pieces = await one.stream(Tokens=12)
            text = backend_pb2.PredictOptions(Prompt="hello", Tokens=12)
            completion = await one.stub.Predict(text, timeout=SECONDS)
            metrics = await one.stub.GetMetrics(backend_pb2.MetricsRequest(), timeout=SECONDS)

        said = own_chat["choices"][0]["message"]["content"]
        usage = own_chat["usage"]
        counts = (usage["completion_tokens"], usage["prompt_tokens"])
        assert said == whole.message.decode() == text_of(pieces)
        assert counts == (whole.tokens, whole.prompt_tokens)
        assert counts == (pieces[-1].tokens, pieces[-1].prompt_tokens)
        assert own_text["choices"][0]["text"] == completion.message.decode()
        assert own_text["usage"]["completion_tokens"] == completion.tokens == 12
        assert 12 == metrics.tokens_generated
        assert metrics.tokens_per_second > 0
        assert pieces[-1].timing_token_generation > 0

    async def test_form_and_log_probabilities(self, tmp_path: Path, llama_url: str) -> None:
        """The form of an answer is kept to, in chats and completions; log probabilities come along."""
        schema = {"enum": ["Paris", "Rome"]}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        fields: dict[str, Any] = {"Tokens": 400, "Metadata": {"response_format": json.dumps(form)}}
        text = backend_pb2.PredictOptions(Prompt="hello", Temperature=0.5, **fields)
        async with backend(tmp_path, url=llama_url) as one:
            assert (await one.load("tiny.gguf")).success
            answer = await one.chat(**fields)
            completion = await one.stub.Predict(text, timeout=SECONDS)
            likely = await one.stream(Logprobs=1, TopLogprobs=2, Tokens=2)

        assert {json.loads(one.message) for one in (answer, completion)} <= {"Paris", "Rome"}
        tokens = [one for reply in likely if reply.logprobs for one in probabilities(reply)]
        assert 2 == len(tokens)
        assert 2 == len(tokens[0]["top_logprobs"])

    async def test_tokens(self, tmp_path: Path, llama_url: str) -> None:
        """Text comes back from its tokens."""
        async with backend(tmp_path, url=llama_url) as one:
            assert (await one.load("tiny.gguf")).success
            split = await one.stub.TokenizeString(backend_pb2.PredictOptions(Prompt="hé there"))
            wanted = backend_pb2.DetokenizeRequest(tokens=split.tokens)
            joined = await one.stub.Detokenize(wanted, timeout=SECONDS)

        assert split.length == len(split.tokens) > 2
        assert "hé there" == joined.content

    async def test_too_long(self, tmp_path: Path, llama_url: str) -> None:
        """What the server refuses is refused in its own words."""
        async with backend(tmp_path, url=llama_url) as one:
            assert (await one.load("tiny.gguf")).success
            code, message = await one.failure(one.chat("x" * 9000))

        assert Code.INVALID_ARGUMENT is code
        assert "exceeds the available context size" in message

    async def test_cancel_counts(self, tmp_path: Path, tiny_gguf: Path) -> None:
        """A call that is cut is counted as far as it came, and the server is free again."""
        with llama_server(tiny_gguf, tmp_path, "--context-size", "2048") as url:
            async with backend(tmp_path, url=url) as one:
                assert (await one.load("tiny.gguf")).success
                # Long enough not to have ended before it is cut.
                call = one.stub.PredictStream(
                    chat("hi", Tokens=2000, IgnoreEOS=True, CorrelationId="c"), timeout=SECONDS
                )
                await call.read()
                call.cancel()
                asking = one.stub.GetMetrics(
                    backend_pb2.MetricsRequest(),
                    metadata=(("x-correlation-id", "c"),),
                    timeout=SECONDS,
                )
                metrics = await asking
                told = dict(await asking.trailing_metadata())
                await until_state(one, STATUS.READY)

        assert ("c", True) == (told["x-correlation-id"], 0 < metrics.tokens_generated < 2000)


class TestCommand:
    @pytest.fixture(autouse=True)
    def _needs_engine(self) -> None:
        pytest.importorskip("xllamacpp", reason="the extra llama is not installed")

    async def test_life(self, tmp_path: Path, tiny_gguf: Path) -> None:
        """A command is started at the load with a key of its own, serves, and ends with what it started when freed."""
        async with backend(
            tmp_path, command=[*COMMAND, "--child"], env={"LLAMA_API_KEY": "{api_key}"}
        ) as one:
            result = await one.load("tiny.gguf", ModelFile=str(tiny_gguf), ContextSize=256)
            assert result.success, result.message
            tree = psutil.Process(one.program.process.pid).children(recursive=True)
            assert 12 == (await one.chat(Tokens=12, IgnoreEOS=True)).tokens
            arguments = tree[0].cmdline()
            url = f"http://127.0.0.1:{port_of(tree[0])}/v1/completions"
            stranger = await asyncio.to_thread(httpx.post, url, json={"prompt": "x"})

            assert (await one.stub.Free(NOTHING, timeout=SECONDS)).success

            assert 401 == stranger.status_code
            assert 2 == len(tree)
            assert "--context-size=256" in arguments
            assert [] == alive(tree)
            # And once more.
            assert (await one.load("tiny.gguf", ModelFile=str(tiny_gguf), ContextSize=256)).success

    async def test_sigterm(self, tmp_path: Path, tiny_gguf: Path) -> None:
        """The program takes its command along when it is asked to end."""
        async with backend(tmp_path, command=[*COMMAND, "--child"]) as one:
            assert (await one.load("tiny.gguf", ModelFile=str(tiny_gguf))).success
            tree = psutil.Process(one.program.process.pid).children(recursive=True)

            one.program.process.terminate()
            code = await asyncio.to_thread(one.program.process.wait, SECONDS)

        assert (0, []) == (code, alive(tree))

    async def test_killed(self, tmp_path: Path, tiny_gguf: Path) -> None:
        """A command that is killed ends the calls, what it started, and the program, which says why."""
        async with backend(tmp_path, command=[*COMMAND, "--child"]) as one:
            assert (await one.load("tiny.gguf", ModelFile=str(tiny_gguf))).success
            tree = psutil.Process(one.program.process.pid).children(recursive=True)
            # Stopped first, since the tiny model may have answered before it is killed.
            os.kill(tree[0].pid, signal.SIGSTOP)
            call = one.stub.PredictStream(chat("hi"), timeout=SECONDS)
            await until_state(one, STATUS.BUSY)
            os.kill(tree[0].pid, signal.SIGKILL)

            got, message = await one.failure(read_all(call))
            code = await asyncio.to_thread(one.program.process.wait, SECONDS)

            assert (Code.UNAVAILABLE, 1) == (got, code)
            assert "gpu: the server ended with signal SIGKILL" == message
            assert [] == alive(tree)
            assert "the server ended with signal SIGKILL" in one.log

    @pytest.mark.parametrize(
        ("command", "model_file", "says"),
        [
            (["/nowhere/server", "{port}"], "", "cannot start /nowhere/server: No such file"),
            (list(COMMAND), "missing.gguf", "the model has no file"),
            (["false", "{port}"], "", "the server ended with exit code 1"),
            (["true", "{port}", "{context_size}"], "", "does not set context_size"),
            (["true", "{port}", "{threads:2}", "{model}"], "", "model cannot begin with a dash"),
        ],
    )
    async def test_cannot_start(
        self, tmp_path: Path, command: list[str], model_file: str, says: str
    ) -> None:
        """A command that cannot serve the model fails the load with the cause."""
        async with backend(tmp_path, command=command) as one:
            result = await one.load("--model", ModelFile=model_file and str(tmp_path / model_file))

        assert not result.success
        assert says in result.message

    async def test_somebody_elses_port(self, tmp_path: Path, llama_url: str) -> None:
        """A command that does not listen itself is not trusted with whoever does."""
        async with backend(
            tmp_path, command=["sleep", "3600"], env={"P": "{port}"}, url=llama_url
        ) as one:
            result = await one.load("tiny.gguf")
            children = psutil.Process(one.program.process.pid).children()

        assert "somebody else listens" in result.message
        assert [] == children

    async def test_environment(self, tmp_path: Path) -> None:
        """A command gets what it was given and nothing that is this program's secret."""
        file = tmp_path / "environment"
        script = f"env > {file}; exit 3"
        variables = {"LOCALAI_GRPC_AUTH_TOKEN": "", "HOME_OF_GPU": "x"}
        async with backend(
            tmp_path,
            key=KEY,
            command=["sh", "-c", script],
            env={"P": "{port}"},
            environment=variables,
        ) as one:
            result = await one.load()

        assert "exit code 3" in result.message
        said = file.read_text()
        assert "HOME_OF_GPU=x" in said
        assert not any(word in said for word in (KEY, "LOCALPLANE_OPENAI", "GRPC_"))


def probabilities(reply: backend_pb2.Reply) -> list[Any]:
    content: list[Any] = json.loads(reply.logprobs)["content"]
    return content


async def read_all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


def port_of(process: psutil.Process) -> int:
    listening = [one for one in process.net_connections() if one.status == psutil.CONN_LISTEN]
    port: int = listening[0].laddr.port
    return port

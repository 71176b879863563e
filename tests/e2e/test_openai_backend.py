"""The openai backend as a program: what it asks a server for, and what it makes of good answers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from backends.hostile_server import (
    HEAD_OF_STREAM,
    STREAM,
    USAGE,
    Asked,
    as_json,
    chunked,
    event,
    event_stream,
    hostile,
    piece,
    then_silence,
    with_status,
)
from backends.openai_program import (
    NOTHING,
    OPENAI,
    SECONDS,
    against,
    backend,
    chat,
    text_of,
    until,
)
from backends.processes import running
from localplane.localai import backend_pb2
from localplane_backends.openai.registration import Registration
from localplane_backends.openai.server import opened

Code = grpc.StatusCode
STATUS = backend_pb2.StatusResponse
WHOLE = b"".join(STREAM)
FORMS: tuple[tuple[bytes, ...], ...] = (
    (WHOLE,),
    (*(bytes([byte]) for byte in WHOLE[:200]), WHOLE[200:]),
    tuple(one.replace(b"\n", b"\r\n") for one in STREAM),
    tuple(one.replace(b"\n", b"\r") for one in STREAM),
    tuple(half for one in STREAM for half in (one[:-1] + b"\r", b"\n")),
    (b": hello\n\n", b"event: message\nid: 3\nretry: 5\n", *STREAM),
    (b"\xef\xbb\xbf", *STREAM),
    STREAM[:-1],
    (*STREAM[:-2], STREAM[-2].rstrip(b"\n")),
    (STREAM[0].replace(b'"object"', b'\ndata: "object"'), *STREAM[1:]),
)
"""The same stream: at once, byte by byte, with other ends of lines, with what is passed over, without its end, ..."""


class TestAnswers:
    """What a server sends, well or not so well formed, is understood."""

    async def test_stream(self, tmp_path: Path) -> None:
        """Pieces come as pieces; the last reply has the counts of the server."""
        async with against(tmp_path, {"chat": chunked(*STREAM)}) as (one, server):
            replies = await one.stream(Temperature=0.8, TopK=3, StopPrompts=["x"])

            asked = server.last("/v1/chat/completions")
            assert [b"a", b"b", b""] == [reply.message for reply in replies]
            assert ["a", "b"] == [reply.chat_deltas[0].content for reply in replies[:2]]
            assert (2, 7) == (replies[-1].tokens, replies[-1].prompt_tokens)
            assert {
                "model": "far",
                "messages": [{"role": "user", "content": "hi"}],
                "temperature": 0.8,
                "top_k": 3,
                "stop": ["x"],
                "max_tokens": 5,
                "stream": True,
                "stream_options": {"include_usage": True},
            } == asked.body
            assert None is asked.key

    async def test_forms_of_a_stream(self, tmp_path: Path) -> None:
        """However a stream is written and cut, it is the same answer."""
        async with against(tmp_path, {}) as (one, server):
            for sent in FORMS:
                server.answers["/v1/chat/completions"] = event_stream(*sent)

                replies = await one.stream()

                assert "ab" == text_of(replies), sent
                assert (2, 7) == (replies[-1].tokens, replies[-1].prompt_tokens), sent

    async def test_server_that_does_not_stream(self, tmp_path: Path) -> None:
        """A server that answers whole where a stream was asked for is understood."""
        whole = {
            "choices": [
                {"message": {"role": "assistant", "content": "ab"}, "finish_reason": "stop"}
            ],
            "usage": USAGE,
        }
        async with against(tmp_path, {"chat": as_json(whole)}) as (one, _):
            replies = await one.stream()

        assert "ab" == text_of(replies)
        assert (2, 7) == (replies[-1].tokens, replies[-1].prompt_tokens)

    async def test_tools(self, tmp_path: Path) -> None:
        """Calls to tools come through, whole and in pieces, and what was asked for goes out as it is."""
        tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
        choice = {"type": "function", "function": {"name": "f"}}
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
        whole = {
            "choices": [
                {
                    "message": {"content": None, "tool_calls": [call], "reasoning": "hm"},
                    "finish_reason": "tool_calls",
                }
            ],
            "usage": USAGE,
        }
        asked_for = {"Tools": json.dumps(tools), "ToolChoice": json.dumps(choice)}
        async with against(tmp_path, {"chat": as_json(whole)}) as (one, server):
            call_of_it = one.stub.Predict(chat("hi", **asked_for), timeout=SECONDS)
            reply = await call_of_it
            trailing = dict(await call_of_it.trailing_metadata())

        (delta,) = reply.chat_deltas
        assert ("hm", "c1", "f", '{"a":1}') == (
            delta.reasoning_content,
            delta.tool_calls[0].id,
            delta.tool_calls[0].name,
            delta.tool_calls[0].arguments,
        )
        assert "tool_calls" == trailing["x-finish-reason"]
        body = server.last("/v1/chat/completions").body
        assert (tools, choice) == (body["tools"], body["tool_choice"])

    async def test_connection_is_kept(self, tmp_path: Path) -> None:
        """One call after the other goes over one connection, streams included."""
        async with against(tmp_path, {"chat": chunked(*STREAM)}) as (one, server):
            before = server.connections
            for _ in range(5):
                await one.stream()

            assert server.connections <= before + 1

    async def test_kept_connection_is_closed(self, tmp_path: Path) -> None:
        """A server may close a kept connection just when it is used again; the call goes over a new one."""
        served = 0

        async def once_for_each_connection(asked: Asked, writer: asyncio.StreamWriter) -> None:
            nonlocal served
            if writer in known:
                writer.close()
                return
            known.append(writer)
            served += 1
            await chunked(*STREAM)(asked, writer)

        known: list[asyncio.StreamWriter] = []
        async with against(tmp_path, {"chat": once_for_each_connection}) as (one, _):
            for _ in range(5):
                assert "ab" == text_of(await one.stream())

        assert 5 == served


class TestLoad:
    @pytest.mark.parametrize(
        ("models", "registration", "asked", "known"),
        [
            ({"data": [{"id": "far"}, {"id": "other"}]}, {}, {"Model": "far"}, "far"),
            ({"data": [{"id": "llama3:latest"}]}, {}, {"Model": "llama3", "ModelFile": "/m/x"}, "llama3"),
            ({"data": [{"id": "only"}]}, {}, {"Model": "name-of-a-file"}, "only"),
            ({"data": [{"id": "x", "owned_by": "llamacpp"}]}, {}, {"Model": "m", "ModelFile": "/m/m"}, "m"),
            ({"data": [{"id": "a"}]}, {"model": "hidden"}, {"Model": "m"}, "hidden"),
            ({"data": []}, {}, {"Model": "m"}, "m"),
            ({"models": 3}, {}, {"Model": "m"}, "m"),
        ],
    )  # fmt: skip
    async def test_model(
        self,
        models: Any,
        registration: dict[str, Any],
        asked: dict[str, Any],
        known: str,
    ) -> None:
        """The model that is asked for is the one that the server means by the name."""
        async with hostile(models=as_json(models)) as server:
            registered = Registration(name="gpu", url=server.url, **registration)
            loaded = await opened(registered, backend_pb2.ModelOptions(**asked))
            await loaded.close()

        assert known == loaded.model

    async def test_no_such_model(self, tmp_path: Path) -> None:
        """A server that does not have the model fails the load and is said to have others."""
        models = {"data": [{"id": f"m{number}"} for number in range(20)]}
        async with (
            hostile(models=as_json(models)) as server,
            backend(tmp_path, url=server.url) as one,
        ):
            result = await one.load("mine", ModelFile="/models/mine")

        assert (
            "gpu: cannot load mine: the server has no model mine;"
            " it has m0, m1, m2, m3, m4, m5, m6, m7, ..." == result.message
        )

    async def test_waits_until_ready(self, tmp_path: Path) -> None:
        """A server that says that it still loads is waited for."""
        async with hostile() as server:
            loading = with_status("503 Busy", b'{"error": {"message": "Loading model"}}')
            server.answers["/health"] = loading
            async with backend(tmp_path, url=server.url) as one:
                result = asyncio.ensure_future(one.load())
                await until(lambda: len(server.asked) > 2)
                assert not result.done()
                server.answers["/health"] = as_json({})

                assert (await result).success

    @pytest.mark.parametrize("path", ["", "/v1", "/v1/", "/sub/v1", "/api/openai"])
    async def test_paths(self, path: str) -> None:
        """The API is where the URL says, or at /v1; what is not OpenAI's is beside it."""
        async with hostile() as server:
            base = path.rstrip("/") or "/v1"
            server.answers = {
                f"{base}/models": as_json({"data": []}),
                f"{base}/chat/completions": chunked(*STREAM),
                f"{base.removesuffix('/v1')}/health": as_json({}),
            }
            loaded = await opened(
                Registration(name="gpu", url=server.url + path), backend_pb2.ModelOptions(Model="m")
            )
            await loaded.check_health()
            streaming = loaded.client.stream(loaded.client.api("/chat/completions"), {})
            events = [event async for events in streaming for event in events]
            await loaded.close()

        assert 4 == len(events)

    async def test_own_names_of_parameters(self, tmp_path: Path) -> None:
        """Fields can be renamed, left out and added, for servers that want it differently."""
        registration = {
            "parameters": {"max_tokens": "max_completion_tokens", "temperature": None},
            "body": {"reasoning_effort": "low"},
        }
        async with against(tmp_path, {"chat": chunked(*STREAM)}, **registration) as (one, server):
            await one.stream()

        body = server.last("/v1/chat/completions").body
        assert (5, "low") == (body["max_completion_tokens"], body["reasoning_effort"])
        assert not {"max_tokens", "temperature"} & body.keys()

    async def test_without_registration(self, tmp_path: Path) -> None:
        """A program that was told of no server says what is missing and ends."""
        with running(OPENAI, tmp_path) as program:
            assert 1 == await asyncio.to_thread(program.process.wait, SECONDS)
        assert "LOCALPLANE_OPENAI_SERVER is not set" in program.log.read_text()


class TestOthers:
    async def test_vllm(self, tmp_path: Path) -> None:
        """VLLM counts as it goes, so that a call that is cut is counted too; its names are used."""
        models = {"data": [{"id": "far", "owned_by": "vllm"}]}
        usage = {"prompt_tokens": 7, "completion_tokens": 1}
        figures = b'# HELP x\nvllm:num_requests_running{model_name="far"} 2.0\n'
        answers = {
            "models": as_json(models),
            "chat": then_silence(HEAD_OF_STREAM, event(piece("a", usage=usage))),
            "tokenize": as_json({"tokens": [1, 2], "count": 2}),
            "detokenize": as_json({"prompt": "hey"}),
            "metrics": with_status("200 OK", figures, kind="text/plain"),
        }
        async with against(tmp_path, answers) as (one, server):
            call = one.stub.PredictStream(
                chat("hi", CorrelationId="c", Penalty=1.1), timeout=SECONDS
            )
            assert b"a" == (await call.read()).message
            call.cancel()
            asking = one.stub.GetMetrics(
                backend_pb2.MetricsRequest(), metadata=(("x-correlation-id", "c"),), timeout=SECONDS
            )
            metrics = await asking
            told = dict(await asking.trailing_metadata())
            tokens = await one.stub.TokenizeString(backend_pb2.PredictOptions(Prompt="hey"))
            text = await one.stub.Detokenize(backend_pb2.DetokenizeRequest(tokens=[1, 2]))
            status = await one.stub.Status(NOTHING)

        body = server.last("/v1/chat/completions").body
        assert {"include_usage": True, "continuous_usage_stats": True} == body["stream_options"]
        assert (1.1, False) == (body["repetition_penalty"], "repeat_penalty" in body)
        assert (1, "c", "7") == (
            metrics.tokens_generated,
            told["x-correlation-id"],
            told["x-prompt-tokens"],
        )
        assert ([1, 2], "hey", STATUS.BUSY) == (list(tokens.tokens), text.content, status.state)

    async def test_uncounted(self, tmp_path: Path) -> None:
        """A call that was cut, of a server that counts only at the end, is not said to be counted."""
        async with against(tmp_path, {"chat": then_silence(HEAD_OF_STREAM, STREAM[0])}) as (one, _):
            call = one.stub.PredictStream(chat("hi", CorrelationId="c"), timeout=SECONDS)
            await call.read()
            call.cancel()
            asking = one.stub.GetMetrics(
                backend_pb2.MetricsRequest(), metadata=(("x-correlation-id", "c"),), timeout=SECONDS
            )
            await asking

            assert "x-correlation-id" not in dict(await asking.trailing_metadata())

    async def test_ollama(self, tmp_path: Path) -> None:
        """Ollama says how much memory its models take, and where."""
        answers = {
            "models": as_json({"data": [{"id": "far:latest", "owned_by": "library"}]}),
            "processes": as_json(
                {
                    "models": [
                        {"name": "other:latest", "size": 1, "size_vram": 1},
                        {"name": "far:latest", "size": 100, "size_vram": 70},
                    ]
                }
            ),
        }
        async with against(tmp_path, answers) as (one, _):
            status = await one.stub.Status(NOTHING, timeout=SECONDS)

        assert (100, {"devices": 70, "ram": 30}) == (
            status.memory.total,
            dict(status.memory.breakdown),
        )

    async def test_no_tokenizer(self, tmp_path: Path) -> None:
        """A server without a tokenizer does not support it."""
        async with against(tmp_path, {}) as (one, _):
            code, message = await one.failure(
                one.stub.TokenizeString(backend_pb2.PredictOptions(Prompt="x"))
            )

        assert (Code.UNIMPLEMENTED, "gpu: the server has no /tokenize") == (code, message)

    async def test_embeddings(self, tmp_path: Path) -> None:
        """An embedding comes with its tokens; what is none is an error."""
        vector = {"data": [{"embedding": [1, 0.5]}], "usage": {"prompt_tokens": 3}}
        async with against(tmp_path, {"embeddings": as_json(vector)}) as (one, server):
            request = backend_pb2.PredictOptions(Embeddings="x")
            result = await one.stub.Embedding(request, timeout=SECONDS)
            body = server.last("/v1/embeddings").body
            server.answers["/v1/embeddings"] = as_json({"data": [{"embedding": "AAAA"}]})
            code, message = await one.failure(one.stub.Embedding(request, timeout=SECONDS))

        assert ([1, 0.5], 2, 3) == (list(result.embeddings), result.dim, result.prompt_tokens)
        assert {"model": "far", "input": "x", "encoding_format": "float"} == body
        assert (Code.INTERNAL, "gpu: the server does not answer with an embedding") == (
            code,
            message,
        )

    async def test_freed_in_the_middle(self, tmp_path: Path) -> None:
        """A model that is freed while it answers ends the call."""
        async with against(tmp_path, {"chat": then_silence(HEAD_OF_STREAM, STREAM[0])}) as (one, _):
            call = one.stub.PredictStream(chat("hi"), timeout=SECONDS)
            await call.read()
            assert (await one.stub.Free(NOTHING, timeout=SECONDS)).success

            code, message = await one.failure(call.read())
            assert (Code.UNAVAILABLE, "gpu: the model was freed") == (code, message)
            assert STATUS.UNINITIALIZED == (await one.stub.Status(NOTHING)).state
            assert Code.FAILED_PRECONDITION is (await one.failure(one.chat()))[0]

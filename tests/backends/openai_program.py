"""The openai backend's program in a test, and the server behind it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from backends.hostile_server import (
    Hostile,
    hostile,
)
from backends.processes import Running, running
from localplane.localai import backend_pb2, backend_pb2_grpc

Code = grpc.StatusCode
STATUS = backend_pb2.StatusResponse

OPENAI = (sys.executable, "-m", "localplane_backends.openai")
SECONDS = 30.0
NOTHING = backend_pb2.HealthMessage()


class OpenAIProgram:
    """A running openai backend and a connection to it."""

    def __init__(self, program: Running) -> None:
        self.program = program
        self.channel = grpc.aio.insecure_channel(program.address)
        self.stub: Any = backend_pb2_grpc.BackendStub(self.channel)

    async def load(self, model: str = "far", **fields: Any) -> backend_pb2.Result:
        options = backend_pb2.ModelOptions(Model=model, **fields)
        result: backend_pb2.Result = await self.stub.LoadModel(options, timeout=SECONDS)
        return result

    async def chat(self, text: str = "hi", **fields: Any) -> backend_pb2.Reply:
        reply: backend_pb2.Reply = await self.stub.Predict(chat(text, **fields), timeout=SECONDS)
        return reply

    async def stream(self, text: str = "hi", **fields: Any) -> list[backend_pb2.Reply]:
        call = self.stub.PredictStream(chat(text, **fields), timeout=SECONDS)
        return [reply async for reply in call]

    async def read(self, texts: list[bytes]) -> None:
        """Stream, and keep what came before an error."""
        async for reply in self.stub.PredictStream(chat("hi"), timeout=SECONDS):
            texts.append(reply.message)  # noqa: PERF401

    async def failure(self, call: Any) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        return caught.value.code(), caught.value.details() or ""

    @property
    def log(self) -> str:
        return self.program.log.read_text()


def chat(text: str, **fields: Any) -> backend_pb2.PredictOptions:
    message = backend_pb2.Message(role="user", content=text)
    return backend_pb2.PredictOptions(
        **{"UseTokenizerTemplate": True, "Messages": [message], "Tokens": 5, **fields}
    )


@asynccontextmanager
async def backend(
    folder: Path, key: str = "", environment: dict[str, str] | None = None, **registration: Any
) -> AsyncGenerator[OpenAIProgram]:
    told = json.dumps({"name": "gpu", **registration})
    variables = {"LOCALPLANE_OPENAI_SERVER": told, "LOCALPLANE_OPENAI_KEY": key}
    with running(OPENAI, folder, **variables, **(environment or {})) as program:
        one = OpenAIProgram(program)
        health = await one.stub.Health(NOTHING, wait_for_ready=True, timeout=SECONDS)
        assert b"OK" == health.message
        try:
            yield one
        finally:
            await one.channel.close()
            # Whatever it started ends with it.
            program.process.terminate()
            await asyncio.to_thread(program.process.wait, SECONDS)


@asynccontextmanager
async def against(
    folder: Path, answers: dict[str, Any], **registration: Any
) -> AsyncGenerator[tuple[OpenAIProgram, Hostile]]:
    """A backend with a loaded model, and the hostile server behind it."""
    async with hostile(**answers) as server:
        registration.setdefault("url", server.url)
        async with backend(folder, **registration) as one:
            result = await one.load()
            assert result.success, result.message
            yield one, server


def text_of(replies: list[backend_pb2.Reply]) -> str:
    return b"".join(reply.message for reply in replies).decode()


async def until(is_so: Any) -> None:
    async with asyncio.timeout(SECONDS):
        while not is_so():
            await asyncio.sleep(0.005)


async def until_state(one: OpenAIProgram, state: int) -> None:
    async with asyncio.timeout(SECONDS):
        while (await one.stub.Status(NOTHING, timeout=SECONDS)).state != state:
            await asyncio.sleep(0.005)

# ruff: noqa: N802 (the backend protocol names its methods)
"""A backend for tests that behaves, and misbehaves, as its model's options say.

``python tests/backends/fake_backend.py --addr HOST:PORT``. It speaks the whole backend protocol: it
repeats the prompt (or the last message of a chat) word by word, embeds a text as the counts of its
first bytes, and takes UTF-8 bytes for tokens. Each option is ``name`` or ``name:value``:

Loading
    ``load_seconds:S``      takes S seconds to load
    ``grow_while_loading``  fills memory all the while
    ``load_error:TEXT``     fails to load, with that message
    ``die_while_loading:N`` exits with code N instead of loading
    ``stderr:TEXT``         writes a line to standard error
    ``environment``         writes its environment to standard error
    ``memory:MB``           holds that much memory, and reports it as weights (default: 1)
    ``total:MB``            reports that as the total of its memory, whatever the parts are
    ``spawn_child``         starts a child process that sleeps
    ``daemonise_child``     starts a grandchild that leaves for a session of its own
Predicting
    ``pieces:N``            answers N pieces ``0 ``, ``1 ``, ... instead of the prompt
    ``piece_seconds:S``     takes S seconds for each piece
    ``split_bytes``         answers the text byte by byte, so that pieces end inside characters
    ``plain``               fills nothing but ``Reply.message``, as LocalAI's simplest backends do
    ``die_on_predict``      is killed in the middle of an answer
Any call
    ``hang:METHOD``         never answers that method
    ``unimplemented:METHOD`` answers it with UNIMPLEMENTED
    ``fail:METHOD=CODE``    answers it with that status code
    ``error_padding:N``     writes N more characters into the message of such an error
    ``retry_after:S``       says with it that the call may come again after S seconds
Ending
    ``ignore_sigterm``      goes on after SIGTERM

What happens before a model is loaded comes from the environment instead. ``FAKE_BACKEND_START`` is
``exit:N`` (exits at once), ``silent`` (never listens), ``unwell`` (answers Health with something
else) or ``seconds:S`` (takes S seconds to listen). The identifiers of child processes are written
to standard error as ``child PID``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc

from localplane.localai import backend_pb2
from localplane_backends import serving
from localplane_backends.backend import Backend, Context

START = "FAKE_BACKEND_START"
EMBEDDING_SIZE = 8
NAMES = frozenset(
    {
        "daemonise_child",
        "die_on_predict",
        "die_while_loading",
        "environment",
        "error_padding",
        "fail",
        "grow_while_loading",
        "hang",
        "ignore_sigterm",
        "load_error",
        "load_seconds",
        "memory",
        "piece_seconds",
        "pieces",
        "plain",
        "retry_after",
        "spawn_child",
        "split_bytes",
        "stderr",
        "total",
        "unimplemented",
    }
)


class FakeBackend(Backend):
    """Does what its model's options say."""

    name = "fake"

    def __init__(self) -> None:
        self.options: dict[str, str] = {}
        self._held = b""
        self._busy = 0
        self._latest = backend_pb2.MetricsResponse()

    async def Health(
        self, request: backend_pb2.HealthMessage, context: Context
    ) -> backend_pb2.Reply:
        unwell = os.environ.get(START) == "unwell"
        return backend_pb2.Reply(message=b"unwell" if unwell else b"OK")

    async def LoadModel(
        self, request: backend_pb2.ModelOptions, context: Context
    ) -> backend_pb2.Result:
        options = dict(text.partition(":")[::2] for text in request.Options)
        unknown = sorted(options.keys() - NAMES)
        if unknown:
            return backend_pb2.Result(message=f"fake: unknown option {unknown[0]}")
        self.options = options
        if "stderr" in options:
            sys.stderr.write(options["stderr"] + "\n")
            sys.stderr.flush()
        if "environment" in options:
            sys.stderr.write("".join(f"{name}={value}\n" for name, value in os.environ.items()))
            sys.stderr.flush()
        if "ignore_sigterm" in options:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if "spawn_child" in options or "daemonise_child" in options:
            _start_child(leaves="daemonise_child" in options)
        await self._take_time(float(options.get("load_seconds", "0")))
        if "die_while_loading" in options:
            os._exit(int(options["die_while_loading"]))
        if "load_error" in options:
            return backend_pb2.Result(message=options["load_error"])
        self._held = os.urandom(1) * (int(options.get("memory", "1")) * 1024 * 1024)
        self.loaded = request
        return backend_pb2.Result(message="loaded", success=True)

    async def _take_time(self, seconds: float) -> None:
        if "grow_while_loading" not in self.options:
            await asyncio.sleep(seconds)
            return
        grown = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            grown.append(os.urandom(4 * 1024 * 1024))
            await asyncio.sleep(0.1)

    async def Free(
        self, request: backend_pb2.HealthMessage, context: Context
    ) -> backend_pb2.Result:
        self.loaded, self._held = None, b""
        return backend_pb2.Result(message="freed", success=True)

    async def Predict(
        self, request: backend_pb2.PredictOptions, context: Context
    ) -> backend_pb2.Reply:
        await self.require_loaded(request, context)
        message = b""
        count = 0
        async for piece in self._pieces(request):
            message += piece
            count += 1
        return self._reply(request, message, count, is_last=True)

    async def PredictStream(
        self, request: backend_pb2.PredictOptions, context: Context
    ) -> AsyncIterator[backend_pb2.Reply]:
        await self.require_loaded(request, context)
        count = 0
        async for piece in self._pieces(request):
            count += 1
            yield self._reply(request, piece, count, is_last=False)
        yield self._reply(request, b"", count, is_last=True)

    async def Embedding(
        self, request: backend_pb2.PredictOptions, context: Context
    ) -> backend_pb2.EmbeddingResult:
        await self.require_loaded(request, context)
        data = request.Embeddings.encode()
        vector = [float(data.count(byte)) for byte in range(97, 97 + EMBEDDING_SIZE)]
        return backend_pb2.EmbeddingResult(embeddings=vector, prompt_tokens=len(data))

    async def TokenizeString(
        self, request: backend_pb2.PredictOptions, context: Context
    ) -> backend_pb2.TokenizationResponse:
        await self.require_loaded(request, context)
        data = request.Prompt.encode()
        return backend_pb2.TokenizationResponse(length=len(data), tokens=data)

    async def Detokenize(
        self, request: backend_pb2.DetokenizeRequest, context: Context
    ) -> backend_pb2.DetokenizeResponse:
        await self.require_loaded(request, context)
        if any(not 0 <= token < 256 for token in request.tokens):
            await self.refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "no such token")
        text = bytes(request.tokens).decode("utf-8", "replace")
        return backend_pb2.DetokenizeResponse(content=text)

    async def Status(
        self, request: backend_pb2.HealthMessage, context: Context
    ) -> backend_pb2.StatusResponse:
        status = backend_pb2.StatusResponse
        if self.loaded is None:
            return status(state=status.UNINITIALIZED)
        answer = status(state=status.BUSY if self._busy else status.READY)
        answer.memory.total = int(self.options.get("total", "0")) * 2**20 or len(self._held)
        answer.memory.breakdown["weights"] = len(self._held)
        return answer

    async def GetMetrics(
        self, request: backend_pb2.MetricsRequest, context: Context
    ) -> backend_pb2.MetricsResponse:
        await self.require_loaded(request, context)
        return self._latest

    async def _pieces(self, request: backend_pb2.PredictOptions) -> AsyncIterator[bytes]:
        text = request.Messages[-1].content if request.Messages else request.Prompt
        if "pieces" in self.options:
            pieces = [f"{number} ".encode() for number in range(int(self.options["pieces"]))]
        elif "split_bytes" in self.options:
            pieces = [bytes([byte]) for byte in text.encode()]
        else:
            pieces = [f"{word} ".encode() for word in text.split()]
        if request.Tokens > 0:
            pieces = pieces[: request.Tokens]
        seconds = float(self.options.get("piece_seconds", "0"))
        began = time.monotonic()
        self._busy += 1
        try:
            for number, piece in enumerate(pieces):
                await asyncio.sleep(seconds)
                if "die_on_predict" in self.options and number == len(pieces) // 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield piece
            self._latest = backend_pb2.MetricsResponse(
                tokens_generated=len(pieces),
                prompt_tokens_processed=len(text.encode()),
                tokens_per_second=len(pieces) / max(1e-6, time.monotonic() - began),
            )
        finally:
            self._busy -= 1

    def _reply(
        self, request: backend_pb2.PredictOptions, message: bytes, count: int, *, is_last: bool
    ) -> backend_pb2.Reply:
        reply = backend_pb2.Reply(message=message)
        if "plain" not in self.options:
            reply.tokens = count
            reply.prompt_tokens = len(request.Prompt.encode())
            if is_last:
                reply.timing_prompt_processing = 1.0
                reply.timing_token_generation = 2.0
        return reply


class Misbehaviour(grpc.aio.ServerInterceptor):
    """Does to whole methods what the options say."""

    def __init__(self, backend: FakeBackend) -> None:
        self._backend = backend

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        method = handler_call_details.method.rpartition("/")[2]
        options = self._backend.options
        failing, _, code = options.get("fail", "").partition("=")

        async def misbehave(_request: Any, context: Any) -> NoReturn:
            if options.get("hang") == method:
                await asyncio.Event().wait()
            if failing == method:
                padding = "." * int(options.get("error_padding", "0"))
                later = options.get("retry_after")
                again = () if later is None else (("x-retry-after", later),)
                message = f"fake: {code.lower()}{padding}"
                await context.abort(grpc.StatusCode[code], message, again)
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "fake: not implemented")
            raise AssertionError

        if method in {options.get("hang"), failing, options.get("unimplemented")}:
            return grpc.unary_unary_rpc_method_handler(misbehave)
        return await continuation(handler_call_details)


def _start_child(*, leaves: bool) -> None:
    program = "import time; time.sleep(3600)"
    if leaves:
        # The middle process ends at once, so that the last one loses its parent.
        program = (
            "import os, subprocess, sys;"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'],"
            " start_new_session=True);"
            "sys.stderr.write(f'child {child.pid}\\n')"
        )
    child = subprocess.Popen([sys.executable, "-c", program])
    if leaves:
        child.wait()
    else:
        sys.stderr.write(f"child {child.pid}\n")
    sys.stderr.flush()


def main() -> NoReturn:
    """Run the program."""
    action, _, value = os.environ.get(START, "").partition(":")
    if action == "exit":
        sys.stderr.write("fake: told to exit\n")
        raise SystemExit(int(value))
    if action == "silent":
        signal.pause()
    if action == "seconds":
        time.sleep(float(value))
    backend = FakeBackend()
    serving.run(backend, interceptors=[Misbehaviour(backend)])


if __name__ == "__main__":
    main()

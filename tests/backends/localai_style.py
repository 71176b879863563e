"""A backend in the manner of LocalAI's own in Python: written against backend.proto alone, with threads.

`backend_pb2` and `backend_pb2_grpc` lie beside it, made from the protocol's file. It imports nothing of ours and knows
one model at a time. The environment says how it starts, and each option of the model, `name` or `name:value`, how it
goes on:

``FOREIGN_IMPORT_SECONDS``  takes so long before it listens
``FOREIGN_NOISE``           writes so many lines before it listens
``FOREIGN_WORKER``          starts a worker of its own before it listens

``piece_seconds:S``         takes S seconds for each piece of a stream
``pieces:N``                answers N pieces
``refuse:TEXT``             does not load, for that cause
``load_seconds:S``          takes S seconds to load

The prompt `describe` is answered with what it was started and loaded with, as JSON.
"""
# ruff: noqa: N802, T201 (the protocol names the methods; what is printed is the log)

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import backend_pb2  # type: ignore[import-not-found]
import backend_pb2_grpc  # type: ignore[import-not-found]
import grpc

VARIABLES = (
    "HF_HOME",
    "LOCALPLANE_API_KEY",
    "LOCALPLANE_EXTERNAL_GRPC_TOKEN",
    "TRANSFORMERS_CACHE",
)


class BackendServicer(backend_pb2_grpc.BackendServicer):  # type: ignore[misc]
    """Holds one model and repeats what it is told."""

    def __init__(self) -> None:
        self.loaded: Any = None
        self.options: dict[str, str] = {}

    def Health(self, request: Any, context: Any) -> Any:
        return backend_pb2.Reply(message=b"OK")

    def LoadModel(self, request: Any, context: Any) -> Any:
        options = dict(text.partition(":")[::2] for text in request.Options)
        print("loading", request.Model, flush=True)
        time.sleep(float(options.get("load_seconds", "0")))
        if "refuse" in options:
            return backend_pb2.Result(message=options["refuse"], success=False)
        self.loaded, self.options = request, options
        return backend_pb2.Result(message="Model loaded successfully", success=True)

    def Predict(self, request: Any, context: Any) -> Any:
        if self.loaded is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "foreign: model not loaded")
        text = json.dumps(self._description()) if request.Prompt == "describe" else request.Prompt
        return backend_pb2.Reply(message=text.encode())

    def PredictStream(self, request: Any, context: Any) -> Iterator[Any]:
        for number in range(int(self.options.get("pieces", "3"))):
            time.sleep(float(self.options.get("piece_seconds", "0")))
            yield backend_pb2.Reply(message=f"{number} ".encode())

    def _description(self) -> dict[str, Any]:
        asked = self.loaded
        return {
            "argv": sys.argv,
            "cwd": os.getcwd(),  # noqa: PTH109 - as a string
            "environment": {name: os.environ.get(name) for name in VARIABLES},
            "model": asked.Model,
            "model_file": asked.ModelFile,
            "models_path": asked.ModelPath,
            "type": asked.Type,
            "mmproj": asked.MMProj,
            "engine_args": asked.EngineArgs,
            "threads": asked.Threads,
            "batch": asked.NBatch,
            "gpu_layers": asked.NGPULayers,
            "flash_attention": asked.FlashAttention,
            "options": list(asked.Options),
        }


class CurrentBackendServicer(BackendServicer):
    """The same, with the methods that came later."""

    def Status(self, request: Any, context: Any) -> Any:
        state = backend_pb2.StatusResponse
        return state(state=state.READY if self.loaded is not None else state.UNINITIALIZED)

    def Free(self, request: Any, context: Any) -> Any:
        print("freed", self.loaded.Model if self.loaded is not None else "nothing", flush=True)
        self.loaded = None
        return backend_pb2.Result(success=True)


class TokenInterceptor(grpc.ServerInterceptor):
    """Lets in who knows the token."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}"

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        if dict(details.invocation_metadata).get("authorization") == self._expected:
            return continuation(details)

        def refuse(_request: Any, context: Any) -> None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "invalid token")

        return grpc.unary_unary_rpc_method_handler(refuse)


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--addr", default="localhost:50051")
    address = parser.parse_args().addr
    if "FOREIGN_WORKER" in os.environ:
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        print("worker", worker.pid, flush=True)
    for number in range(int(os.environ.get("FOREIGN_NOISE", "0"))):
        print("importing", number, "." * 200, file=sys.stderr)
    time.sleep(float(os.environ.get("FOREIGN_IMPORT_SECONDS", "0")))
    token = os.environ.get("LOCALAI_GRPC_AUTH_TOKEN", "")
    workers = int(os.environ.get("PYTHON_GRPC_MAX_WORKERS", "1"))
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=workers),
        interceptors=[TokenInterceptor(token)] if token else [],
    )
    is_current = hasattr(backend_pb2_grpc.BackendServicer, "Status")
    servicer = CurrentBackendServicer() if is_current else BackendServicer()
    backend_pb2_grpc.add_BackendServicer_to_server(servicer, server)
    if not server.add_insecure_port(address):
        sys.exit(1)
    signal.signal(signal.SIGTERM, lambda *_: server.stop(0))
    signal.signal(signal.SIGINT, lambda *_: server.stop(0))
    server.start()
    print("Server started. Listening on:", address, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()

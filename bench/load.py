"""Times the load of a model through the service against the engine's own load.

Usage: ``python bench/load.py [--json] [--rounds N]``. Ours is a call of `LoadModel`: from the start
of the backend's process until the model is ready, warmed up. The engine's is its constructor in a
new process that has imported it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import grpc
from model_files import CONTEXT_TOKENS, Model, folder_of_models, has_engine
from programs import Worker, service
from rounds import Comparison, arguments, comparison, report, take_turns

from localplane.v1 import backend_service_pb2, backend_service_pb2_grpc

LIMIT_SECONDS = 0.2


def main() -> None:
    """Compare and print."""
    options = arguments(__doc__, rounds=12)
    results: list[Comparison] = []
    if has_engine():
        results += _compare(options.rounds)
    report(results, as_json=options.json)


def _compare(rounds: int) -> Iterator[Comparison]:
    with (
        folder_of_models() as (folder, models),
        service(models=folder) as server,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        stub = backend_service_pb2_grpc.BackendServiceStub(channel)
        for model in models:
            pairs = take_turns(
                lambda model=model: _load(stub, model),  # type: ignore[misc]
                lambda model=model: _engine_load(model),  # type: ignore[misc]
                rounds=rounds,
            )
            yield comparison(f"load of {model.name}", pairs, unit="s", limit=LIMIT_SECONDS)


def _load(stub: backend_service_pb2_grpc.BackendServiceStub, model: Model) -> float:
    began = time.perf_counter()
    stub.LoadModel(backend_service_pb2.LoadModelRequest(model=model.name))
    seconds = time.perf_counter() - began
    stub.ShutdownBackend(backend_service_pb2.ShutdownBackendRequest(model=model.name))
    return seconds


def _engine_load(model: Model) -> float:
    with Worker("load") as worker:
        seconds: float = worker.do(file=str(model.file), context_tokens=CONTEXT_TOKENS)
        return seconds


if __name__ == "__main__":
    main()

"""Times the life of backends: how fast a stop is, how soon a death is seen, what idle ones cost.

Usage: ``python bench/life.py [--json] [--rounds N]``. The tiny model is stopped while idle and loaded
again; then its backend is killed and its state asked for until it is `failed`. Last, ten loaded models
idle while the processor time of the service, its keeper and their wardens is read.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
from model_files import CONTEXT_TOKENS, folder_of_models, has_engine
from programs import Server, cpu_seconds, service
from rounds import Reading, arguments, report

from localplane.v1 import backend_pb2, backend_service_pb2_grpc
from localplane.v1 import backend_service_pb2 as pb

IDLE_BACKENDS = 10
IDLE_SECONDS = 20.0
SETTLE_SECONDS = 2.0
PATIENCE_SECONDS = 30.0


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__, rounds=20)
    results: list[Reading] = []
    if has_engine():
        with folder_of_models() as (folder, _):
            _add_copies(folder)
            with (
                service(models=folder) as server,
                grpc.insecure_channel(server.grpc) as channel,
            ):
                stub = backend_service_pb2_grpc.BackendServiceStub(channel)
                results += _stops(stub, options.rounds)
                results += _deaths(stub, options.rounds)
                results += _idle(stub, server)
    report(results, as_json=options.json)


def _add_copies(folder: Path) -> None:
    for number in range(IDLE_BACKENDS):
        (folder / f"idle-{number}.yaml").write_text(
            f"name: idle-{number}\nbackend: llama\ncontext_size: {CONTEXT_TOKENS}\n"
            "parameters: {model: tiny.gguf}\n"
        )


def _stops(stub: backend_service_pb2_grpc.BackendServiceStub, rounds: int) -> Iterator[Reading]:
    taken = []
    for _ in range(rounds):
        stub.LoadModel(pb.LoadModelRequest(model="tiny"))
        began = time.perf_counter()
        stub.ShutdownBackend(pb.ShutdownBackendRequest(model="tiny"))
        taken.append(1000 * (time.perf_counter() - began))
    yield from _readings("stop of an idle backend", taken)


def _deaths(stub: backend_service_pb2_grpc.BackendServiceStub, rounds: int) -> Iterator[Reading]:
    taken = []
    for _ in range(rounds):
        stub.LoadModel(pb.LoadModelRequest(model="tiny"))
        pid = stub.GetBackendStatus(pb.GetBackendStatusRequest(model="tiny")).pid
        os.kill(pid, signal.SIGKILL)
        began = time.perf_counter()
        while _state(stub, "tiny") != backend_pb2.BACKEND_STATE_FAILED:
            if time.perf_counter() - began > PATIENCE_SECONDS:
                raise RuntimeError("the death of a backend was not seen")
        taken.append(1000 * (time.perf_counter() - began))
    yield from _readings("death of a backend until it is seen", taken)


def _state(stub: backend_service_pb2_grpc.BackendServiceStub, model: str) -> int:
    backends = stub.ListBackends(pb.ListBackendsRequest()).backends
    return next(one.state for one in backends if one.model == model)


def _idle(stub: backend_service_pb2_grpc.BackendServiceStub, server: Server) -> Iterator[Reading]:
    for number in range(IDLE_BACKENDS):
        stub.LoadModel(pb.LoadModelRequest(model=f"idle-{number}"))
    keeper = psutil.Process(server.pid).children()[0]
    wardens = keeper.children()
    groups = {
        "serve": [server.pid],
        "keeper and wardens": [keeper.pid, *(warden.pid for warden in wardens)],
        "the backends themselves": [
            child.pid for warden in wardens for child in warden.children(recursive=True)
        ],
    }
    time.sleep(SETTLE_SECONDS)
    before = {name: sum(map(cpu_seconds, pids)) for name, pids in groups.items()}
    began = time.perf_counter()
    time.sleep(IDLE_SECONDS)
    seconds = time.perf_counter() - began
    for name, pids in groups.items():
        share = (sum(map(cpu_seconds, pids)) - before[name]) / seconds
        yield Reading(
            name=f"{IDLE_BACKENDS} idle backends, {name}", unit="% of a core", value=100 * share
        )


def _readings(name: str, taken: list[float]) -> Iterator[Reading]:
    yield Reading(name=f"{name}, median", unit="ms", value=statistics.median(taken))
    yield Reading(name=f"{name}, longest", unit="ms", value=max(taken))


if __name__ == "__main__":
    main()

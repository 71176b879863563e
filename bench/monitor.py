"""Times the monitor while another model is loaded and stopped, again and again.

Usage: ``python bench/monitor.py [--json] [--rounds N]``. A call of `GetBackendStatus` asks the backend of a loaded
model for its own figures. It is compared with the same call while nothing else happens; 99 of 100 calls are faster than
what is told.
"""

from __future__ import annotations

import statistics
import threading
import time

import grpc
from background import Background
from model_files import folder_of_models, has_engine
from programs import service
from rounds import Result, arguments, comparison, report, take_turns

from localplane.v1 import backend_service_pb2, backend_service_pb2_grpc

CALLS = 300
PAUSE_SECONDS = 0.005
LIMIT_MS = 50.0


def _loads(address: str, model: str) -> Background:
    """Return what loads a model and stops it, again and again."""

    def work(is_over: threading.Event, has_begun: threading.Event) -> None:
        with grpc.insecure_channel(address) as channel:
            stub = backend_service_pb2_grpc.BackendServiceStub(channel)
            while not is_over.is_set():
                has_begun.set()
                stub.LoadModel(backend_service_pb2.LoadModelRequest(model=model))
                stub.ShutdownBackend(backend_service_pb2.ShutdownBackendRequest(model=model))

    return Background(work)


def main() -> None:
    """Compare and print."""
    options = arguments(__doc__, rounds=5)
    results: list[Result] = []
    if has_engine():
        results = _compare(options.rounds)
    report(results, as_json=options.json)


def _compare(rounds: int) -> list[Result]:
    with (
        folder_of_models() as (folder, models),
        service(models=folder) as server,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        stub = backend_service_pb2_grpc.BackendServiceStub(channel)
        watched = models[0].name
        # The same file under a name of its own: whatever else there is, this one can be had.
        text = (folder / f"{watched}.yaml").read_text().replace(f"name: {watched}", "name: other")
        (folder / "other.yaml").write_text(text)
        stub.LoadModel(backend_service_pb2.LoadModelRequest(model=watched))

        def busy() -> list[float]:
            with _loads(server.grpc, "other"):
                return _times(stub, watched)

        pairs = take_turns(busy, lambda: _times(stub, watched), rounds=rounds)
    return [
        comparison(
            f"monitor while another model loads, {name}",
            [(of(mine) * 1000, of(other) * 1000) for mine, other in pairs],
            unit="ms",
            limit=limit,
        )
        for name, of, limit in (("p99", _p99, LIMIT_MS), ("median", statistics.median, None))
    ]


def _times(stub: backend_service_pb2_grpc.BackendServiceStub, model: str) -> list[float]:
    request = backend_service_pb2.GetBackendStatusRequest(model=model)
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        stub.GetBackendStatus(request)
        times.append(time.perf_counter() - began)
        time.sleep(PAUSE_SECONDS)
    return times


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[-1]


if __name__ == "__main__":
    main()

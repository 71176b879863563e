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
from model_files import folder_of_models, has_engine
from programs import service
from rounds import Result, arguments, comparison, report, take_turns

from localplane.v1 import backend_service_pb2, backend_service_pb2_grpc

CALLS = 300
PAUSE_SECONDS = 0.005
LIMIT_MS = 50.0


class Loads:
    """Loads a model and stops it for as long as the context is open."""

    def __init__(self, address: str, model: str) -> None:
        self._address = address
        self._model = model
        self._is_over = threading.Event()
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()
        self._has_begun.wait()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        with grpc.insecure_channel(self._address) as channel:
            stub = backend_service_pb2_grpc.BackendServiceStub(channel)
            while not self._is_over.is_set():
                self._has_begun.set()
                stub.LoadModel(backend_service_pb2.LoadModelRequest(model=self._model))
                stub.ShutdownBackend(backend_service_pb2.ShutdownBackendRequest(model=self._model))


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
            with Loads(server.grpc, "other"):
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
